/** Commands of the extension; their keys and menu entries stand in `schema/plugin.json`. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Widget } from '@lumino/widgets';
import type { Current } from './current';
import type { Revealer } from './reveal';

export const COMMANDS = {
  next: 'nanhunt:next-finding',
  previous: 'nanhunt:previous-finding',
  sidebar: 'nanhunt:toggle-sidebar'
} as const;

/** What the shells of both JupyterLab and Notebook can do beyond the interface they share. */
interface ISideAreas extends JupyterFrontEnd.IShell {
  collapseLeft?(): void;
  collapseRight?(): void;
}

/** Adds the commands; returns what shows or hides the sidebar. */
export function addCommands(
  app: JupyterFrontEnd,
  current: Current,
  revealer: Revealer,
  sidebar: Widget,
  trans: TranslationBundle,
  palette: ICommandPalette | null
): () => void {
  const go = async (step: 1 | -1) => {
    const finding = current.neighbour(step);
    if (finding) {
      await revealer.reveal(finding.source, current.watch?.panel.node ?? null, finding);
    }
  };
  const toggle = () => {
    const shell: ISideAreas = app.shell;
    if (sidebar.isVisible) {
      // A person may have moved it.
      if ([...shell.widgets('left')].includes(sidebar)) {
        shell.collapseLeft?.();
      } else {
        shell.collapseRight?.();
      }
    } else {
      shell.activateById(sidebar.id);
    }
  };
  const isEnabled = () => current.findings.length > 0;
  const noArguments = { args: { type: 'object', properties: {} } };
  app.commands.addCommand(COMMANDS.next, {
    label: trans.__('Next Finding'),
    caption: trans.__('Go to the line of the next finding of nanhunt'),
    execute: () => go(1),
    isEnabled,
    describedBy: noArguments
  });
  app.commands.addCommand(COMMANDS.previous, {
    label: trans.__('Previous Finding'),
    caption: trans.__('Go to the line of the previous finding of nanhunt'),
    execute: () => go(-1),
    isEnabled,
    describedBy: noArguments
  });
  app.commands.addCommand(COMMANDS.sidebar, {
    label: trans.__('Show Findings'),
    caption: trans.__('Show or hide what nanhunt found in this notebook'),
    execute: toggle,
    isToggled: () => sidebar.isVisible,
    describedBy: noArguments
  });
  current.changed.connect(() => {
    app.commands.notifyCommandChanged(COMMANDS.next);
    app.commands.notifyCommandChanged(COMMANDS.previous);
  });
  const category = 'nanhunt';
  Object.values(COMMANDS).forEach(command => palette?.addItem({ command, category }));
  return toggle;
}
