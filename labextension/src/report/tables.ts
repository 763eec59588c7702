/** The tables of a report: what an operation saw, remedies, and the way to the culprit. */
import { h } from '../dom';
import type { Child } from '../dom';
import type { IFinding, ISource, ITensorStats, ITrial } from './format';
import { histogramOf } from './histogram';
import { rangeBar } from './range';
import { bits, count, number, visible } from './text';
import type { Wording } from './wording';

/** Rows of one table; a report of this program has fewer. */
const MOST_ROWS = 300;

/** A link to a line of the program, or its name where nothing can be opened. */
export type Link = (source: ISource) => HTMLElement;

function table(
  caption: string,
  headers: readonly string[],
  rows: readonly (readonly Child[])[],
  words: Wording
): HTMLElement {
  const head = h('tr', {}, ...headers.map(name => h('th', { scope: 'col' }, name)));
  const body = rows
    .slice(0, MOST_ROWS)
    .map(cells => h('tr', {}, ...cells.map(cell => h('td', {}, cell))));
  const left = rows.length - body.length;
  return h(
    'div',
    // It may scroll sideways: then the keyboard has to reach it.
    { class: 'nanhunt-table', role: 'region', 'aria-label': caption, tabindex: 0 },
    h('table', { 'aria-label': caption }, h('thead', {}, head), h('tbody', {}, ...body)),
    left > 0 ? h('p', {}, words.trans.__('%1 more rows are left out', count(left))) : null
  );
}

function unbroken(text: string): HTMLElement {
  return h('span', { class: 'nanhunt-unbroken' }, text);
}

/** Inputs and outputs of the culprit, each with its magnitudes as a bar. */
export function tensorTable(finding: IFinding, words: Wording): HTMLElement {
  const trans = words.trans;
  const row = (stats: ITensorStats): Child[] => [
    visible(stats.name, 40),
    unbroken(words.shape(stats)),
    unbroken(words.badCounts(stats)),
    number(stats.absmin),
    number(stats.absmax),
    bits(stats.headroom),
    histogramOf(stats, trans),
    rangeBar(stats, trans)
  ];
  const headers = [
    trans.__('tensor'),
    trans.__('dtype and shape'),
    trans.__('values'),
    trans.__('|min| > 0'),
    trans.__('|max|'),
    trans.__('to limit'),
    trans.__('by power of two'),
    trans.__('range of the dtype')
  ];
  const all = [...finding.inputs, ...finding.outputs];
  return table(trans.__('What the operation saw'), headers, all.map(row), words);
}

/** Remedies tried by replay, the smallest change first. */
export function trialTable(finding: IFinding, words: Wording): HTMLElement {
  const trans = words.trans;
  const row = (trial: ITrial): Child[] => [
    visible(trial.remedy, 80),
    words.cured(trial.cured),
    number(trial.loss),
    number(trial.gradientChange),
    visible(trial.note, 80)
  ];
  const headers = [
    trans.__('remedy'),
    trans.__('cured'),
    trans.__('loss'),
    trans.__('gradients moved'),
    trans.__('note')
  ];
  return table(trans.__('Remedies tried by replay'), headers, finding.trials.map(row), words);
}

/** The user's frames, outermost first. */
export function stackTable(finding: IFinding, words: Wording, link: Link): HTMLElement {
  const trans = words.trans;
  const row = (source: ISource): Child[] => [
    link(source),
    visible(source.function, 60),
    h('code', {}, visible(source.code, 120))
  ];
  const headers = [trans.__('where'), trans.__('function'), trans.__('line')];
  return table(trans.__('How the program got there'), headers, finding.stack.map(row), words);
}
