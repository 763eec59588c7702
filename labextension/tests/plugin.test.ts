import type { JupyterFrontEnd } from '@jupyterlab/application';
import { nullTranslator } from '@jupyterlab/translation';
import type { Widget } from '@lumino/widgets';
import { expect, it, vi } from 'vitest';
import { host } from '../src/host';
import plugin from '../src/index';

// Of these only the names of their services are needed, and they are slow to load.
vi.mock('@jupyterlab/codemirror', () => ({ IEditorExtensionRegistry: null }));
vi.mock('@jupyterlab/docmanager', () => ({ IDocumentManager: null }));
vi.mock('@jupyterlab/notebook', () => ({ INotebookTracker: null }));
vi.mock('@jupyterlab/statusbar', () => ({ IStatusBar: null }));

it('the plugin lets go of everything with its sidebar', () => {
  const added: Widget[] = [];
  const sent = new Map<string, Set<unknown>>();
  /** A signal that counts who listens. */
  const signal = (name: string) => {
    const heard = new Set<unknown>();
    sent.set(name, heard);
    return {
      connect: (_: unknown, listener: unknown) => heard.add(listener),
      disconnect: (_: unknown, listener: unknown) => heard.delete(listener)
    };
  };
  const tracker = {
    widgetAdded: signal('widgetAdded'),
    currentChanged: signal('currentChanged'),
    currentWidget: null,
    forEach: () => undefined
  };
  const app = {
    shell: { add: (widget: Widget) => added.push(widget) },
    commands: { addCommand: () => undefined, notifyCommandChanged: () => undefined }
  };
  void plugin.activate(
    app as unknown as JupyterFrontEnd,
    tracker,
    {},
    { addExtension: () => undefined },
    nullTranslator,
    null,
    null
  );
  expect([...sent.values()].map(heard => heard.size)).toEqual([2, 2]);
  expect(host.reveal).not.toBeNull();
  added[0]!.dispose();
  expect([...sent.values()].map(heard => heard.size)).toEqual([0, 0]);
  expect(host.reveal).toBeNull();
});
