import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Signal } from '@lumino/signaling';
import type { Widget } from '@lumino/widgets';
import { expect, it, vi } from 'vitest';
import { addCommands } from '../src/notebook/commands';
import type { Current } from '../src/notebook/current';
import type { Revealer } from '../src/notebook/reveal';
import { words } from './words';

it.each(['left', 'right'])('the sidebar is shown and hidden on the %s, where it is', side => {
  const sidebar = { id: 'nanhunt-sidebar', isVisible: false };
  const shell = {
    widgets: (area: string) => (area === side ? [{}, sidebar] : [{}])[Symbol.iterator](),
    activateById: vi.fn(),
    collapseLeft: vi.fn(),
    collapseRight: vi.fn()
  };
  const app = { shell, commands: { addCommand: () => undefined } };
  const toggle = addCommands(
    app as unknown as JupyterFrontEnd,
    { changed: new Signal<object, void>({}) } as unknown as Current,
    {} as unknown as Revealer,
    sidebar as unknown as Widget,
    words.trans,
    null
  );
  toggle();
  expect(shell.activateById).toHaveBeenCalledWith('nanhunt-sidebar');
  sidebar.isVisible = true;
  toggle();
  const calls = [shell.collapseLeft, shell.collapseRight].map(hide => hide.mock.calls.length);
  expect(calls).toEqual(side === 'left' ? [1, 0] : [0, 1]);
});
