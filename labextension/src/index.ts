/** What the extension adds to JupyterLab and Notebook beside the report renderer in `mime.ts`. */
import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IEditorExtensionRegistry } from '@jupyterlab/codemirror';
import { IDocumentManager } from '@jupyterlab/docmanager';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator } from '@jupyterlab/translation';
import { LabIcon } from '@jupyterlab/ui-components';
import { host, strings } from './host';
import { icon } from './icon';
import { addLiveCommands } from './live/commands';
import { Live } from './live/live';
import { addCommands } from './notebook/commands';
import { Current } from './notebook/current';
import { markExtension, Marks } from './notebook/marks';
import { keepPanelKeys } from './notebook/panelKeys';
import { revealCell, Revealer } from './notebook/reveal';
import { Sidebar } from './notebook/sidebar';
import { StatusItem } from './notebook/status';
import { Wording } from './report/wording';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'nanhunt:plugin',
  description:
    'Findings of nanhunt: culprit lines, a sidebar, links into cells and files; live hunts.',
  autoStart: true,
  requires: [INotebookTracker, IDocumentManager, IEditorExtensionRegistry, ITranslator],
  optional: [ICommandPalette, IStatusBar, ILayoutRestorer],
  activate
};

function activate(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  documents: IDocumentManager,
  editors: IEditorExtensionRegistry,
  translator: ITranslator,
  palette: ICommandPalette | null,
  statusBar: IStatusBar | null,
  restorer: ILayoutRestorer | null
): void {
  const words = new Wording(strings(translator));
  const marks = new Marks();
  editors.addExtension({
    name: 'nanhunt:mark',
    factory: ({ model }) => {
      return { instance: () => markExtension(marks, model), reconfigure: () => null };
    }
  });
  const current = new Current(tracker, marks, words);
  const revealer = new Revealer(app, documents, words, marks, () => current.all);
  host.translator = translator;
  host.reveal = (source, origin, finding) => void revealer.reveal(source, origin, finding);

  const live = new Live(tracker);
  const keys = keepPanelKeys(document);
  const sidebar = new Sidebar(current, live, words, {
    reveal: (watch, source, finding) => void revealer.reveal(source, watch.panel.node, finding),
    revealReport: (watch, entry) =>
      void revealCell(app.shell, watch.panel, watch.indexOf(entry.cell), null)
  });
  sidebar.title.icon = new LabIcon(icon);
  sidebar.title.caption = words.trans.__('nanhunt findings');
  app.shell.add(sidebar, 'right', { rank: 900, type: 'nanhunt' });
  restorer?.add(sidebar, sidebar.id);

  sidebar.disposed.connect(() => {
    host.reveal = null;
    [keys, live, current, marks].forEach(part => part.dispose());
  });

  const toggle = addCommands(app, current, revealer, sidebar, words.trans, palette);
  addLiveCommands(app, live, words.trans, palette);
  if (statusBar) {
    const item = new StatusItem(current, live, words, toggle);
    statusBar.registerStatusItem('nanhunt:status', {
      align: 'right',
      item,
      isActive: () => item.active,
      activeStateChanged: item.changed
    });
  }
}

export default plugin;
