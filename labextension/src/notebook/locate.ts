/** Where a line of a report stands now: in which cell of a notebook, or in which file. */
import type { ISource } from '../report/format';

/** What has to be known of a cell. */
export interface ICellText {
  readonly executionCount: number | null;
  readonly lines: readonly string[];
}

export interface IPlace {
  /** Index of the cell. */
  readonly cell: number;
  /** Whether the line still reads as in the report. */
  readonly unchanged: boolean;
}

/** Whether a line, counted from 1, is the one that a report names. */
export function reads(lines: readonly string[], source: ISource): boolean {
  return source.code !== '' && lines[source.line - 1]?.trim() === source.code.trim();
}

/**
 * The cell that a source names.
 *
 * Execution counts start again with every kernel, and a cell gets a new one whenever it runs; so
 * the text of the line decides, and the count only where several cells have that line.
 */
export function findCell(cells: readonly ICellText[], source: ISource): IPlace | null {
  if (source.cell === null) {
    return null;
  }
  const counted = cells.findIndex(cell => cell.executionCount === source.cell);
  const reading = cells.flatMap((cell, index) => (reads(cell.lines, source) ? [index] : []));
  if (reading.includes(counted)) {
    return { cell: counted, unchanged: true };
  }
  if (reading.length === 1) {
    return { cell: reading[0]!, unchanged: true };
  }
  return counted < 0 ? null : { cell: counted, unchanged: false };
}

/** Parts of a path beyond which no folder is looked for. */
const DEEPEST = 12;

/**
 * Paths below the server's root under which a file of the user's program may be served.
 *
 * @param file As the training process named it, perhaps on another machine.
 * @param root The folder that the server serves; it may begin with `~`.
 * @param folder The folder of the notebook, as the server names it.
 */
export function servedPaths(file: string, root: string, folder: string): string[] {
  const path = file.replaceAll('\\', '/');
  const home = root.replaceAll('\\', '/').replace(/\/$/, '');
  const marker = home.startsWith('~') ? `${home.slice(1)}/` : `${home}/`;
  const at = path.indexOf(marker);
  const below = at >= 0 && marker !== '/' ? [path.slice(at + marker.length)] : [];
  const parts = path.split('/').filter(part => part && part !== '.' && part !== '..');
  const tails = parts.slice(-DEEPEST).map((_, index, all) => all.slice(index).join('/'));
  const beside = folder && parts.length ? [`${folder}/${parts[parts.length - 1]!}`] : [];
  const all = new Set([...below, ...tails, ...beside]);
  return [...all].filter(found => found && !found.split('/').includes('..'));
}
