/** A command for everything that a live hunt can do; keys and menus: `schema/plugin.json`. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Live } from './live';
import { CONTROLS } from './state';

/** Adds `nanhunt:step` and so on, possible when the hunt of the current notebook can do it. */
export function addLiveCommands(
  app: JupyterFrontEnd,
  live: Live,
  trans: TranslationBundle,
  palette: ICommandPalette | null
): void {
  for (const { name, menu, hint } of CONTROLS) {
    const command = `nanhunt:${name}`;
    app.commands.addCommand(command, {
      label: trans.__(menu),
      caption: trans.__(hint),
      execute: () => live.give(name),
      isEnabled: () => live.can(name),
      describedBy: { args: { type: 'object', properties: {} } }
    });
    palette?.addItem({ command, category: 'nanhunt' });
  }
  live.changed.connect(() => {
    CONTROLS.forEach(({ name }) => app.commands.notifyCommandChanged(`nanhunt:${name}`));
  });
}
