/** A command for everything that a live hunt can do; keys and menus: `schema/plugin.json`. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Live } from './live';
import { COMMAND_NAMES } from './state';
import { commandWords } from './wording';

/** Adds `nanhunt:step` and so on, possible when the hunt of the current notebook can do it. */
export function addLiveCommands(
  app: JupyterFrontEnd,
  live: Live,
  trans: TranslationBundle,
  palette: ICommandPalette | null
): void {
  const words = commandWords(trans);
  for (const name of COMMAND_NAMES) {
    const { label, caption } = words[name];
    const command = `nanhunt:${name}`;
    app.commands.addCommand(command, {
      label,
      caption,
      execute: () => live.give(name),
      isEnabled: () => live.can(name),
      describedBy: { args: { type: 'object', properties: {} } }
    });
    palette?.addItem({ command, category: 'nanhunt' });
  }
  live.changed.connect(() => {
    COMMAND_NAMES.forEach(name => app.commands.notifyCommandChanged(`nanhunt:${name}`));
  });
}
