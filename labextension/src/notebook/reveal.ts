/** Goes to a cell or a file of the user's program. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Notification } from '@jupyterlab/apputils';
import type { CodeEditor } from '@jupyterlab/codeeditor';
import { PageConfig, PathExt } from '@jupyterlab/coreutils';
import type { IDocumentManager } from '@jupyterlab/docmanager';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { Widget } from '@lumino/widgets';
import type { IFinding, ISource } from '../report/format';
import type { Wording } from '../report/wording';
import { findLine, servedPath, servedPaths, textOf } from './locate';
import type { ILine } from './locate';
import type { Marks } from './marks';
import type { NotebookWatch } from './watch';

/** Puts the cursor on a line of a notebook's cell, counted from 1. */
export async function revealCell(
  shell: JupyterFrontEnd.IShell,
  panel: NotebookPanel,
  index: number,
  line: number | null
): Promise<void> {
  const notebook = panel.content;
  const cell = notebook.widgets[index];
  if (!cell) {
    return;
  }
  shell.activateById(panel.id);
  notebook.deselectAll();
  notebook.activeCellIndex = index;
  // While a long notebook is still being drawn, cells above this one grow and push it away.
  for (let tries = 0; tries < 5; tries++) {
    await notebook.scrollToCell(cell, 'smart');
    await cell.ready;
    await new Promise(drawn => setTimeout(drawn, tries * 100));
    if (inView(cell.node, notebook.node)) {
      break;
    }
  }
  if (line !== null && cell.editor) {
    cell.inputHidden = false;
    notebook.mode = 'edit';
    putCursor(cell.editor, line);
  }
}

/** Whether any part of a cell can be seen in its notebook; one that is not drawn has no size. */
function inView(cell: HTMLElement, notebook: HTMLElement): boolean {
  const [own, around] = [cell.getBoundingClientRect(), notebook.getBoundingClientRect()];
  return own.height > 0 && own.bottom > around.top && own.top < around.bottom;
}

/** Goes from a report to the lines that it names. */
export class Revealer {
  constructor(
    private readonly _app: JupyterFrontEnd,
    private readonly _documents: IDocumentManager,
    private readonly _words: Wording,
    private readonly _marks: Marks,
    /** The notebooks that are open, the current one first. */
    private readonly _watches: () => readonly NotebookWatch[]
  ) {}

  /**
   * @param origin What was pressed, or the notebook that it is about; if it is in a notebook, then
   *     only that one is looked through and those that share its kernel.
   * @param finding Whose culprit the line is: in a file it is marked.
   */
  async reveal(source: ISource, origin: Element | null, finding: IFinding | null): Promise<void> {
    const all = this._watches();
    const own = all.find(watch => origin !== null && watch.panel.node.contains(origin));
    const watches = own ? [own, ...all.filter(watch => share(own, watch))] : all;
    const found =
      source.cell === null ? this._file(source, watches, finding) : this._cell(source, watches);
    if (!(await found)) {
      const trans = this._words.trans;
      const place = this._words.place(source);
      Notification.warning(
        source.cell === null
          ? trans.__('%1 was not found below the folder that this server serves', place)
          : trans.__('%1 is in no notebook that is open here', place),
        { autoClose: 6000 }
      );
    }
  }

  private async _cell(source: ISource, watches: readonly NotebookWatch[]): Promise<boolean> {
    const places = watches.map(watch => ({ watch, place: watch.find(source) }));
    const best = places.find(({ place }) => place?.unchanged) ?? places.find(({ place }) => place);
    if (!best?.place) {
      return false;
    }
    await revealCell(this._app.shell, best.watch.panel, best.place.cell, best.place.line);
    return true;
  }

  private async _file(
    source: ISource,
    watches: readonly NotebookWatch[],
    finding: IFinding | null
  ): Promise<boolean> {
    const root = PageConfig.getOption('serverRoot');
    const folder = watches[0] ? PathExt.dirname(watches[0].panel.context.path) : '';
    const own = servedPath(source.file, root);
    let edited = false;
    for (const path of servedPaths(source.file, root, folder)) {
      const place = await this._find(path, source);
      if (place?.unchanged) {
        await this._open(path, source, finding);
        return true;
      }
      edited ||= place !== null && path === own;
    }
    // A file elsewhere that has such a line in another place may be any file.
    if (own !== null && edited) {
      await this._open(own, source, finding);
      return true;
    }
    return false;
  }

  private async _open(path: string, source: ISource, finding: IFinding | null): Promise<void> {
    const widget = this._documents.openOrReveal(path, 'Editor');
    await widget?.context.ready;
    const editor = (widget?.content as { editor?: CodeEditor.IEditor } | undefined)?.editor;
    if (widget && editor) {
      // The editor may hold changes that are not in the file yet.
      const place = findLine(textOf(editor.model.sharedModel.getSource()), source);
      putCursor(editor, place?.line ?? source.line);
      if (place?.unchanged) {
        this._mark(editor.model, source, finding, widget);
      }
    }
  }

  private _mark(
    model: CodeEditor.IModel,
    { line }: ISource,
    finding: IFinding | null,
    widget: Widget
  ): void {
    if (finding) {
      const [short, verdict] = [this._words.short(finding), this._words.verdict(finding)];
      this._marks.set(model, [{ finding, line, short, verdict }]);
      widget.disposed.connect(() => this._marks.set(model, []));
    }
  }

  /** Where a source's line stands in a file; null when no such file is served. */
  private async _find(path: string, source: ISource): Promise<ILine | null> {
    try {
      const file = await this._app.serviceManager.contents.get(path, {
        type: 'file',
        format: 'text',
        content: true
      });
      return typeof file.content === 'string' ? findLine(textOf(file.content), source) : null;
    } catch {
      return null; // not there, or not a text: the next path may be it
    }
  }
}

/** Whether two notebooks have one kernel. */
function share(own: NotebookWatch, other: NotebookWatch): boolean {
  const [kernel, theirs] = [own, other].map(({ panel }) => panel.sessionContext.session?.kernel);
  return own !== other && kernel != null && kernel.id === theirs?.id;
}

function putCursor(editor: CodeEditor.IEditor, line: number): void {
  const last = editor.lineCount - 1;
  const position = { line: Math.max(0, Math.min(line - 1, last)), column: 0 };
  editor.focus();
  editor.setCursorPosition(position);
  editor.revealPosition(position);
}
