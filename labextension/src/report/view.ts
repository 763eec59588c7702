/** A report as elements: verdict, culprit line, cause, evidence, modules, remedies. */
import { button, folded, h } from '../dom';
import type { Child } from '../dom';
import type { Reveal } from '../host';
import { mainFinding } from './format';
import type { IFinding, IReport, ISource } from './format';
import { ModuleTable } from './moduleTable';
import { stackTable, tensorTable, trialTable } from './tables';
import { count, number, visible, visibleLines, withoutEmptyEnds } from './text';
import { reportKind, reportSign } from './wording';
import type { Wording } from './wording';

/** Sentences, names and findings of one list; a report of this program has fewer. */
const MOST_LINES = 100;

export class ReportView {
  /** @param open Opens a line of the program; null where nothing can be opened. */
  constructor(
    report: IReport,
    private readonly _words: Wording,
    private readonly _open: Reveal | null
  ) {
    const trans = _words.trans;
    const main = mainFinding(report);
    const others = report.findings.filter(finding => finding !== main);
    this.node = h(
      'section',
      {
        class: `nanhunt-Report nanhunt-mod-${reportKind(report)}`,
        'aria-label': trans.__('nanhunt report')
      },
      this._verdict(report),
      main && report.interrupted ? h('p', {}, trans.__('The hunt was interrupted.')) : null,
      ...(main ? this._finding(main, report) : [this._model(report)]),
      ...this._others(others, report),
      this._notes(report)
    );
  }

  readonly node: HTMLElement;

  dispose(): void {
    for (const table of this._tables) {
      table.dispose();
    }
    this._tables.length = 0;
    this.node.remove();
  }

  private _verdict(report: IReport): HTMLElement {
    return h(
      'p',
      { class: 'nanhunt-Report-verdict' },
      h('span', { 'aria-hidden': 'true' }, `${reportSign(report)} `),
      h('strong', {}, this._words.headline(report))
    );
  }

  /** Everything about one finding but its verdict. */
  private _finding(finding: IFinding, report: IReport): Child[] {
    const trans = this._words.trans;
    const inputs = finding.inputs.length + finding.outputs.length > 0;
    return [
      this._culprit(finding),
      finding.explanation
        ? h('p', { class: 'nanhunt-Report-why' }, visible(finding.explanation, 400))
        : null,
      this._facts(finding, report),
      this._change(finding),
      finding.evidence.length
        ? folded(trans.__('Evidence (%1)', count(finding.evidence.length)), () => [
            this._lines(finding.evidence, 300)
          ])
        : null,
      inputs
        ? folded(
            trans.__('What the operation saw'),
            () => [tensorTable(finding, this._words)],
            finding === mainFinding(report)
          )
        : null,
      finding.trials.length
        ? folded(trans.__('Remedies tried by replay (%1)', count(finding.trials.length)), () => [
            trialTable(finding, this._words)
          ])
        : null,
      this._modules(finding),
      finding.stack.length > 1
        ? folded(trans.__('How the program got there'), () => [
            stackTable(finding, this._words, source => this._link(source))
          ])
        : null
    ];
  }

  /** The culprit line, with a link to where it stands. */
  private _culprit(finding: IFinding): HTMLElement | null {
    const source = finding.source;
    if (source === null) {
      return null;
    }
    return h(
      'div',
      { class: 'nanhunt-Report-culprit' },
      this._link(source, finding),
      h('pre', {}, h('code', {}, visible(source.code)))
    );
  }

  private _link(source: ISource, finding: IFinding | null = null): HTMLElement {
    const place = this._words.place(source);
    const open = this._open;
    if (open === null) {
      return h('span', { class: 'nanhunt-place' }, place);
    }
    const link: HTMLElement = button(place, () => open(source, link, finding), {
      class: 'nanhunt-link',
      title: this._words.trans.__('Go to %1', visible(source.file, 200))
    });
    return link;
  }

  private _facts(finding: IFinding, report: IReport): HTMLElement {
    const trans = this._words.trans;
    const verdict = this._words.verdict(finding);
    const unsaid = (value: string | null) => (value && !verdict.includes(value) ? value : '');
    const cause =
      finding.cause === 'not_established'
        ? trans.__('not established')
        : visible(finding.cause, 80);
    const facts: [string, string][] = [
      [trans.__('cause'), cause],
      [trans.__('remedy'), this._remedy(finding)],
      [trans.__('operation'), visible(unsaid(finding.op), 80)],
      [trans.__('tensor'), visible(unsaid(finding.tensor), 120)],
      [trans.__('reaches'), visible(finding.reaches.slice(0, MOST_LINES).join(', '), 300)],
      [trans.__('replay'), this._words.replay(report.replay)],
      [trans.__('model'), visible(report.title, 120)]
    ];
    return definitions(facts);
  }

  /** The winning trial in a line. */
  private _remedy(finding: IFinding): string {
    const trans = this._words.trans;
    const best = finding.trials[0];
    if (!best) {
      return '';
    }
    const ran = finding.trials.filter(trial => trial.cured !== null).length;
    const tried = count(ran);
    if (!best.cured) {
      return this._noCure(finding, ran);
    }
    const cures = count(finding.trials.filter(trial => trial.cured === true).length);
    const told = trans.__('%1: cured by replay', visible(best.remedy, 80));
    const of = ran > 1 ? ` ${trans.__('(%1 of %2 tried cure)', cures, tried)}` : '';
    const loss = best.loss === null ? '' : `, ${trans.__('loss then %1', number(best.loss))}`;
    return told + of + loss + (best.note ? `; ${visible(best.note, 80)}` : '');
  }

  /** That nothing cured, and what has not even been run. */
  private _noCure(finding: IFinding, ran: number): string {
    const trans = this._words.trans;
    const left = finding.trials.length - ran;
    if (ran > 0) {
      const told = trans.__('none of the %1 tried by replay cured the step', count(ran));
      return left > 0 ? `${told}; ${trans.__('%1 not run', count(left))}` : told;
    }
    const notes = [...new Set(finding.trials.map(trial => trial.note).filter(Boolean))];
    const told = trans.__('%1 known, none could be run', count(left));
    return notes.length ? `${told} (${visible(notes.join('; '), 160)})` : told;
  }

  /** The winning trial as code to take over. */
  private _change(finding: IFinding): HTMLElement | null {
    const trans = this._words.trans;
    const best = finding.trials[0];
    if (!best?.cured || !best.snippet) {
      return null;
    }
    const sources = [...finding.stack, ...(finding.source ? [finding.source] : [])];
    const cell = sources.find(source => source.file === best.file)?.cell ?? null;
    const caption = best.lines.length
      ? trans.__('Change %1', this._words.lines(best.file, cell, best.lines))
      : trans.__('Change');
    const code = visibleLines(withoutEmptyEnds(best.snippet));
    return h(
      'figure',
      { class: 'nanhunt-Report-change' },
      h('figcaption', {}, caption),
      h('pre', {}, h('code', {}, code))
    );
  }

  private _modules(finding: IFinding): HTMLElement | null {
    if (finding.frames.length === 0) {
      return null;
    }
    const calls = count(finding.frames.length);
    return folded(this._words.trans.__('Last modules before it (%1)', calls), () => {
      const table = new ModuleTable(finding, this._words);
      this._tables.push(table);
      return [table.node];
    });
  }

  private _others(others: readonly IFinding[], report: IReport): Child[] {
    if (others.length === 0) {
      return [];
    }
    const trans = this._words.trans;
    const left = others.length - MOST_LINES;
    return [
      h('p', { class: 'nanhunt-Report-caption' }, trans.__('Other findings')),
      ...others.slice(0, MOST_LINES).map(finding => {
        const told = `${this._words.severity(finding)}: ${this._words.verdict(finding)}`;
        return folded(told, () => this._finding(finding, report));
      }),
      left > 0 ? h('p', {}, trans.__('and %1 more findings', count(left))) : null
    ];
  }

  private _model(report: IReport): HTMLElement | null {
    return report.title
      ? definitions([[this._words.trans.__('model'), visible(report.title, 120)]])
      : null;
  }

  /** What could not be done, what it cost, and where it ran. */
  private _notes(report: IReport): HTMLElement | null {
    const trans = this._words.trans;
    const costs = this._words.costs(report.costs);
    const lines = [...(costs ? [costs] : []), ...report.notes];
    const environment = [...report.environment].slice(0, MOST_LINES);
    if (lines.length === 0 && environment.length === 0) {
      return null;
    }
    return h(
      'div',
      { class: 'nanhunt-Report-notes' },
      lines.length ? this._lines(lines, 300) : null,
      environment.length
        ? folded(trans.__('Environment'), () => [
            definitions(environment.map(([key, value]) => [visible(key, 40), visible(value, 200)]))
          ])
        : null
    );
  }

  private _lines(lines: readonly string[], limit: number): HTMLElement {
    const shown = lines.slice(0, MOST_LINES).map(line => h('li', {}, visible(line, limit)));
    const left = lines.length - shown.length;
    const more = left > 0 ? h('li', {}, this._words.trans.__('and %1 more', count(left))) : null;
    return h('ul', {}, ...shown, more);
  }

  private readonly _tables: ModuleTable[] = [];
}

/** Labels and what they stand for; empty ones are left out. */
function definitions(entries: readonly (readonly [string, string])[]): HTMLElement {
  const said = entries.filter(([, value]) => value);
  return h('dl', {}, ...said.flatMap(([label, value]) => [h('dt', {}, label), h('dd', {}, value)]));
}
