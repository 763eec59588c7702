/** Where a line of a report stands now: in which cell of a notebook, or in which file. */
import type { ISource } from '../report/format';

/** A text as it is searched through for lines of reports. */
export interface IText {
  /** Without their margins. */
  readonly lines: readonly string[];
  /** How many lines at its start are empty. */
  readonly empty: number;
}

/** What has to be known of a cell. */
export interface ICellText extends IText {
  readonly executionCount: number | null;
}

/** A line of a text. */
export interface ILine {
  /** Counted from 1. */
  readonly line: number;
  /** Whether it still stands where the report has it, and reads the same. */
  readonly unchanged: boolean;
}

export interface IPlace extends ILine {
  /** Index of the cell. */
  readonly cell: number;
}

export function textOf(text: string): IText {
  const lines = text.split('\n').map(line => line.trim());
  const first = lines.findIndex(line => line !== '');
  return { lines, empty: Math.max(0, first) };
}

/** The line of a file that a source names, or the nearest one that reads like it. */
export function findLine(text: IText, source: ISource): ILine | null {
  const code = source.code.trim();
  if (reads(text, code, source.line)) {
    return { line: source.line, unchanged: true };
  }
  const line = nearest(text, code, source.line);
  return line === null ? null : { line, unchanged: false };
}

/**
 * The cell and the line that a source names.
 *
 * Execution counts start again with every kernel, and a cell gets a new one whenever it runs; so
 * the text of the line decides, and the count only where several cells have that line.
 */
export function findCell(cells: readonly ICellText[], source: ISource): IPlace | null {
  if (source.cell === null) {
    return null;
  }
  const code = source.code.trim();
  const all = [...cells.keys()];
  const counted = all.filter(cell => cells[cell]!.executionCount === source.cell);
  const choose = (found: readonly number[]): number | null => {
    const both = found.filter(cell => counted.includes(cell));
    const [first, second] = both.length > 0 ? both : found;
    return first === undefined || second !== undefined ? null : first;
  };
  // IPython leaves out empty lines before the first line of a cell, and does not count them.
  const wanted = (cell: number) => source.line + cells[cell]!.empty;
  const reading = choose(all.filter(cell => reads(cells[cell]!, code, wanted(cell))));
  if (reading !== null) {
    return { cell: reading, line: wanted(reading), unchanged: true };
  }
  const having = choose(all.filter(cell => code !== '' && cells[cell]!.lines.includes(code)));
  const cell = having ?? counted[0];
  if (cell === undefined) {
    return null;
  }
  const line = nearest(cells[cell]!, code, wanted(cell)) ?? wanted(cell);
  return { cell, line, unchanged: false };
}

function reads({ lines }: IText, code: string, line: number): boolean {
  return code !== '' && lines[line - 1] === code;
}

/** The line that reads like this and is the nearest to one; null when none does. */
function nearest({ lines }: IText, code: string, wanted: number): number | null {
  let best: number | null = null;
  lines.forEach((text, index) => {
    const line = index + 1;
    const nearer = best === null || Math.abs(line - wanted) < Math.abs(best - wanted);
    if (code !== '' && text === code && nearer) {
      best = line;
    }
  });
  return best;
}

/** Parts of a path beyond which no folder is looked for. */
const DEEPEST = 12;

/** Where a file is served that lies below the server's root; null when it does not. */
export function servedPath(file: string, root: string): string | null {
  const path = file.replaceAll('\\', '/');
  const home = root.replaceAll('\\', '/').replace(/\/$/, '');
  const marker = home.startsWith('~') ? `${home.slice(1)}/` : `${home}/`;
  const at = path.indexOf(marker);
  const below = at >= 0 && marker !== '/' ? path.slice(at + marker.length) : '';
  return below && !climbs(below) ? below : null;
}

/**
 * Paths below the server's root under which a file of the user's program may be served.
 *
 * @param file As the training process named it, perhaps on another machine.
 * @param root The folder that the server serves; it may begin with `~`.
 * @param folder The folder of the notebook, as the server names it.
 */
export function servedPaths(file: string, root: string, folder: string): string[] {
  const below = servedPath(file, root);
  const parts = file.split(/[\\/]/).filter(part => part && part !== '.' && part !== '..');
  const tails = parts.slice(-DEEPEST).map((_, index, all) => all.slice(index).join('/'));
  const beside = folder && parts.length ? [`${folder}/${parts[parts.length - 1]!}`] : [];
  return [...new Set([...(below === null ? [] : [below]), ...tails, ...beside])].filter(
    path => !climbs(path)
  );
}

/** Whether a path leads out of a folder. */
function climbs(path: string): boolean {
  return path.split('/').includes('..');
}
