/** Findings in words; the sentences are those of `nanhunt/render/wording.py`. */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Refusal } from './decode';
import type { Expected } from './fields';
import { isPlaced, mainFinding, VERSION } from './format';
import type { IFinding, IReport, ISource, ITensorStats } from './format';
import { baseName, count, number, visible } from './text';

/** How grave a finding is, as a glyph; colour alone never carries meaning. */
export function sign(finding: IFinding): string {
  return finding.severity === 'critical' ? '✗' : '△';
}

/** The same for a whole report, by its status; green is for the first alone. */
const SIGNS = new Map([
  ['healthy', '✓'],
  ['warning', '△'],
  ['finding', '✗'],
  ['unexplained', '?'],
  ['interrupted', '■'],
  ['nothing_watched', '○'],
  ['internal_error', '!']
]);

export function reportSign(report: IReport): string {
  return SIGNS.get(report.status) ?? '?';
}

/** The end of the class for its colour; a status not known here looks like something bad. */
export function reportKind(report: IReport): string {
  const known = SIGNS.has(report.status) && report.status !== 'finding';
  return known ? report.status.replace('_', '-') : 'critical';
}

/** Says things in the user's language. */
export class Wording {
  constructor(readonly trans: TranslationBundle) {
    this._kinds = new Map([
      ['nan', trans.__('NaN')],
      ['inf', trans.__('Inf')],
      ['complex_half', trans.__('ComplexHalf')],
      ['poisoned_state', trans.__('Poisoned state')],
      ['not_training', trans.__('Not training')]
    ]);
    this._severities = new Map([
      ['critical', trans.__('critical')],
      ['warning', trans.__('warning')]
    ]);
    this._expected = {
      text: trans.__('text'),
      whole: trans.__('a whole number'),
      number: trans.__('a number'),
      flag: trans.__('true or false'),
      list: trans.__('a list'),
      object: trans.__('an object'),
      value: trans.__('a value')
    };
  }

  /** One line for a whole report. */
  headline(report: IReport): string {
    const finding = mainFinding(report);
    if (finding) {
      return this.verdict(finding);
    }
    const trans = this.trans;
    const steps = trans._n('%2 step', '%2 steps', report.stepsRun, count(report.stepsRun));
    switch (report.status) {
      case 'healthy':
        return trans.__('Healthy: %1, nothing bad seen', steps);
      case 'warning':
        return trans.__('%1 without a failure, but not without a warning', steps);
      case 'interrupted':
        return report.interrupted
          ? trans.__('Interrupted after %1: nothing bad seen until then', steps)
          : trans.__('Ended by an exception after %1: nothing bad seen until then', steps);
      case 'unexplained':
        return trans.__(
          'Something went bad in step %1; what made it bad has not been looked for',
          String(report.stepsRun - 1)
        );
      case 'nothing_watched':
        return trans.__('Nothing was watched: no step was run');
      case 'internal_error':
        return trans.__('nanhunt itself failed after %1: nothing bad seen until then', steps);
    }
    return `${visible(report.status, 40)}: ${steps}`;
  }

  /** One line that says what, when, where. */
  verdict(finding: IFinding): string {
    const trans = this.trans;
    const where = `${this._module(finding)}${this.call(finding.call)}`;
    const at = finding.source ? `, ${this.place(finding.source)}` : '';
    const step = String(finding.step);
    const kind = this._kinds.get(finding.kind) ?? visible(finding.kind, 30);
    const tensor = finding.tensor === null ? null : visible(finding.tensor, 60);
    switch (finding.kind) {
      case 'poisoned_state':
        return trans.__('Step %1: %2 was bad at the start', step, tensor ?? trans.__('state'));
      case 'complex_half':
        return (
          trans.__('ComplexHalf is born in step %1: %2 %3', step, this._op(finding), where) + at
        );
      case 'not_training':
        return `${kind}: ${visible(finding.cause.replaceAll('_', ' '), 60)}`;
    }
    if (finding.phase === 'data') {
      const culprit = tensor ?? trans.__('a tensor');
      return trans.__('%1 comes in with the data in step %2: %3', kind, step, culprit) + at;
    }
    if (!isPlaced(finding)) {
      const seen = visible(finding.reaches[0] ?? finding.tensor ?? trans.__('a tensor'), 60);
      const told = trans.__('%1 was seen in step %2 (%3)', kind, step, seen);
      return finding.cause === 'not_established'
        ? trans.__('%1; what made it is not known', told)
        : told;
    }
    const culprit = finding.node || finding.op || finding.tensor || trans.__('an operation');
    const [name, phase] = [visible(culprit, 60), visible(finding.phase, 30)];
    return trans.__('%1 is born in step %2: %3 %4 (%5)', kind, step, name, where, phase) + at;
  }

  severity(finding: IFinding): string {
    return this._severities.get(finding.severity) ?? visible(finding.severity, 20);
  }

  /** A few words for the margin of an editor. */
  short(finding: IFinding): string {
    return this._kinds.get(finding.kind) ?? visible(finding.kind, 30);
  }

  /** `cell [3], line 7` or `train.py:41`. */
  place(source: ISource): string {
    return this.lines(source.file, source.cell, [source.line]);
  }

  /** `train.py:41`, `train.py:41-43` or `cell [3], line 7`. */
  lines(file: string, cell: number | null, numbers: readonly number[]): string {
    const first = numbers[0] ?? 0;
    const last = numbers[numbers.length - 1] ?? first;
    const range = last === first ? `${first}` : `${first}-${last}`;
    if (cell !== null) {
      return this.trans.__('cell [%1], line %2', String(cell), range);
    }
    return `${visible(baseName(file), 40)}:${range}`;
  }

  /** The n-th call, said only when it is not the first. */
  call(value: number | string | null): string {
    if (value === null || value === 1) {
      return '';
    }
    return value === 'recompute'
      ? ` ${this.trans.__('(recomputed)')}`
      : ` ${this.trans.__('(call %1)', visible(String(value), 20))}`;
  }

  /** `3 NaN, 1 +Inf of 4,096`, or `finite`. */
  badCounts(stats: ITensorStats): string {
    if (stats.note) {
      return visible(stats.note, 40);
    }
    const counts: [number, string][] = [
      [stats.nan, 'NaN'],
      [stats.posinf, '+Inf'],
      [stats.neginf, '-Inf']
    ];
    const parts = counts.filter(([n]) => n > 0).map(([n, word]) => `${count(n)} ${word}`);
    return parts.length
      ? this.trans.__('%1 of %2', parts.join(', '), count(stats.numel))
      : this.trans.__('finite');
  }

  /** `float16 [8, 3, 64]`. */
  shape(stats: ITensorStats): string {
    const sizes = stats.shape.slice(0, 12).map(String);
    const more = stats.shape.length > sizes.length ? ', …' : '';
    return `${visible(stats.dtype, 20)} [${sizes.join(', ')}${more}]`;
  }

  /** The replay verdict in plain words; empty when none was needed. */
  replay(value: string): string {
    switch (value) {
      case 'bit_exact':
        return this.trans.__('replayed bit for bit');
      case 'symptom':
        return this.trans.__('replayed with the same failure, other bits');
      case 'not_needed':
        return '';
    }
    return visible(value.replace('not_reproduced', this.trans.__('not reproduced')), 160);
  }

  cured(value: boolean | null): string {
    if (value === null) {
      return this.trans.__('not run');
    }
    return value ? this.trans.__('✓ yes') : this.trans.__('✗ no');
  }

  /** What the hunt cost, in one line; empty when nothing was measured. */
  costs(costs: ReadonlyMap<string, number>): string {
    const trans = this.trans;
    const parts: string[] = [];
    const add = (key: string, scale: number, tell: (amount: string) => string, replays = '') => {
      const value = costs.get(key);
      if (value !== undefined) {
        const times = Math.trunc(costs.get(replays) ?? 0);
        const and = times ? ` ${trans.__('and %1 replays', count(times))}` : '';
        parts.push(tell(number(value * scale)) + and);
      }
    };
    add('watched_step_seconds', 1e3, ms => trans.__('a watched step took %1 ms (median)', ms));
    add('observed_step_seconds', 1e3, ms => trans.__('the observed first step %1 ms', ms));
    add('examination_seconds', 1, s => trans.__('finding the culprit %1 s', s), 'replays');
    add('trial_seconds', 1, s => trans.__('trying remedies %1 s', s), 'trial_replays');
    return parts.join(', ');
  }

  /** Why something is not shown as a report, and what to do. */
  refusal(why: Refusal): string {
    const trans = this.trans;
    switch (why.kind) {
      case 'not-json':
        return trans.__('This is not a nanhunt report: %1', visible(why.detail, 200));
      case 'too-long':
        return trans.__('This file is too long to be shown: %1 characters', count(why.characters));
      case 'no-report':
        return trans.__('This is not a nanhunt report: its “format” is missing');
      case 'version':
        return trans.__(
          'This report has version %1; this extension reads version %2. Install the version of nanhunt that wrote it, or a newer one.',
          visible(why.found, 20),
          String(VERSION)
        );
      case 'damaged':
        return trans.__(
          'This report is damaged: %1 was expected at “%2”',
          this._expected[why.expected],
          visible(why.where || '.', 100)
        );
    }
  }

  private _op(finding: IFinding): string {
    return visible(finding.op ?? this.trans.__('an operation'), 80);
  }

  private _module(finding: IFinding): string {
    if (finding.module === null) {
      return this.trans.__('outside any module');
    }
    return finding.module
      ? this.trans.__('in %1', visible(finding.module, 60))
      : this.trans.__('in the root module');
  }

  private readonly _kinds: ReadonlyMap<string, string>;
  private readonly _severities: ReadonlyMap<string, string>;
  private readonly _expected: Readonly<Record<Expected, string>>;
}
