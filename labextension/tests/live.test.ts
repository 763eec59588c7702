import type { INotebookTracker } from '@jupyterlab/notebook';
import { nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';
import { beforeEach, describe, expect, it } from 'vitest';
import { Controls } from '../src/live/controls';
import { Live } from '../src/live/live';
import { CONTROLS, decodeState, TARGET } from '../src/live/state';
import schema from '../schema/plugin.json';

const trans = nullTranslator.load('nanhunt');

/** A connection to a kernel, in which a hunt may be live. */
class Kernel {
  readonly sent: unknown[] = [];
  readonly targets = new Map<string, unknown>();
  comms: Record<string, object> = {};
  isDisposed = false;
  handleComms = false;
  connectionStatus = 'connected';
  readonly username = 'somebody';
  readonly clientId = 'here';

  registerCommTarget(name: string, accept: unknown): void {
    this.targets.set(name, accept);
  }

  removeCommTarget(name: string, accept: unknown): void {
    if (this.targets.get(name) === accept) {
      this.targets.delete(name);
    }
  }

  requestCommInfo(): Promise<unknown> {
    return Promise.resolve({ content: { status: 'ok', comms: this.comms } });
  }

  hasComm(): boolean {
    return false;
  }

  createComm(_: string, commId: string): object {
    return {
      commId,
      isDisposed: false,
      dispose: () => undefined,
      send: (data: unknown) => this.sent.push({ comm: data })
    };
  }

  sendShellMessage(message: { content: { data: unknown } }): void {
    this.sent.push(message.content.data);
  }
}

/** A notebook's panel, as far as its session is watched. */
class Panel {
  readonly disposed = new Signal<this, void>(this);
  readonly sessionContext: {
    session: { kernel: Kernel } | null;
    kernelChanged: Signal<object, unknown>;
    statusChanged: Signal<object, string>;
    connectionStatusChanged: Signal<object, string>;
    iopubMessage: Signal<object, unknown>;
  };

  constructor(readonly kernel: Kernel) {
    this.sessionContext = {
      session: { kernel },
      kernelChanged: new Signal<object, unknown>({}),
      statusChanged: new Signal<object, string>({}),
      connectionStatusChanged: new Signal<object, string>({}),
      iopubMessage: new Signal<object, unknown>({})
    };
  }

  hear(type: string, comm: string, content: object = {}): void {
    const header = { msg_type: type };
    this.sessionContext.iopubMessage.emit({ header, content: { comm_id: comm, ...content } });
  }

  opens(comm: string): void {
    this.hear('comm_open', comm, { target_name: TARGET, data: {} });
  }

  tells(comm: string, headline: string, ...commands: string[]): void {
    this.hear('comm_msg', comm, { data: { hunt: { headline, commands, grade: 'busy' } } });
  }

  status(status: string): void {
    this.sessionContext.statusChanged.emit(status);
  }
}

class Tracker {
  readonly widgetAdded = new Signal<this, Panel>(this);
  readonly currentChanged = new Signal<this, Panel | null>(this);
  currentWidget: Panel | null = null;

  forEach(): void {}

  show(panel: Panel): void {
    this.currentWidget = panel;
    this.currentChanged.emit(panel);
  }
}

const settled = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 0));

let tracker: Tracker;
let live: Live;
let panel: Panel;

function add(kernel = new Kernel()): Panel {
  const made = new Panel(kernel);
  tracker.widgetAdded.emit(made);
  return made;
}

beforeEach(() => {
  tracker = new Tracker();
  live = new Live(tracker as unknown as INotebookTracker);
  panel = add();
  tracker.show(panel);
});

describe('the state of a live hunt', () => {
  it('is what the comm told last, until the comm is closed', async () => {
    await settled();
    panel.opens('a');
    expect(live.state).toBeNull();
    panel.tells('a', 'at step 0', 'step');
    panel.tells('a', 'at step 1', 'step', 'back');
    expect(live.state?.headline).toBe('at step 1');
    expect(live.can('back')).toBe(true);
    expect(live.can('over')).toBe(false);
    panel.tells('b', 'of another comm', 'over');
    expect(live.can('over')).toBe(false);
    panel.hear('comm_close', 'b');
    expect(live.state).not.toBeNull();
    panel.hear('comm_close', 'a');
    expect(live.state).toBeNull();
  });

  it('is asked for by a page that comes late', async () => {
    const kernel = new Kernel();
    kernel.comms = { late: {} };
    const late = add(kernel);
    tracker.show(late);
    await settled();
    expect(kernel.sent).toEqual([{ ask: 'state' }]);
    late.tells('late', 'at step 3', 'step');
    expect(live.state?.headline).toBe('at step 3');
  });

  it('is asked for through the comm where the connection may have comms', async () => {
    const kernel = new Kernel();
    kernel.comms = { late: {} };
    kernel.handleComms = true;
    add(kernel);
    await settled();
    expect(kernel.sent).toEqual([{ comm: { ask: 'state' } }]);
  });

  it('is gone with a restart, and found again after it', async () => {
    panel.opens('a');
    panel.tells('a', 'at step 0', 'step');
    panel.status('restarting');
    expect(live.state).toBeNull();
    panel.tells('a', 'an echo', 'step');
    expect(live.state).toBeNull();
    panel.kernel.comms = { b: {} };
    panel.status('idle');
    await settled();
    panel.tells('b', 'at step 7', 'step');
    expect(live.state?.headline).toBe('at step 7');
  });

  it.each<Record<string, object>>([{}, { a: {} }])(
    'of a hunt is kept that begins while the page asks',
    async comms => {
      await settled();
      panel.kernel.comms = comms; // as it was when the kernel was asked
      panel.sessionContext.connectionStatusChanged.emit('connected');
      panel.opens('b');
      panel.tells('b', 'at step 1', 'step');
      await settled();
      expect(live.state?.headline).toBe('at step 1');
    }
  );

  it('can be given no command while there is no connection', async () => {
    await settled();
    panel.opens('a');
    panel.tells('a', 'at step 0', 'step');
    panel.kernel.connectionStatus = 'connecting';
    panel.sessionContext.connectionStatusChanged.emit('connecting');
    expect(live.state?.headline).toBe('at step 0');
    expect(live.can('step')).toBe(false);
    live.give('step'); // which would be sent later, all at once
    expect(panel.kernel.sent).toEqual([]);
    panel.kernel.connectionStatus = 'connected';
    panel.kernel.comms = { a: {} };
    panel.sessionContext.connectionStatusChanged.emit('connected');
    await settled();
    panel.tells('a', 'at step 0', 'step');
    expect(live.can('step')).toBe(true);
  });

  it('is asked for anew after a lost connection', async () => {
    panel.opens('a');
    panel.tells('a', 'at step 0', 'step');
    panel.sessionContext.connectionStatusChanged.emit('connected');
    await settled();
    expect(live.state).toBeNull();
  });

  it('is that of the current notebook, also of two on one kernel', async () => {
    await settled();
    const other = add();
    const second = add(panel.kernel);
    await settled();
    [panel, second].forEach(one => one.opens('a'));
    [panel, second].forEach(one => one.tells('a', 'at step 0', 'step'));
    tracker.show(other);
    expect(live.state).toBeNull();
    tracker.show(second);
    expect(live.state?.headline).toBe('at step 0');
    panel.disposed.emit();
    live.give('step');
    expect(panel.kernel.sent).toEqual([{ command: 'step' }]);
  });

  it('is told of a notebook that was current before it was known', () => {
    let told = 0;
    live.changed.connect(() => told++);
    const next = new Panel(new Kernel());
    tracker.show(next);
    const before = told;
    tracker.widgetAdded.emit(next);
    expect(told).toBeGreaterThan(before);
  });

  it('follows a notebook to another kernel and lets go of the one before', async () => {
    panel.opens('a');
    panel.tells('a', 'at step 0', 'step');
    const next = new Kernel();
    panel.sessionContext.session = { kernel: next };
    panel.sessionContext.kernelChanged.emit({});
    await settled();
    expect(live.state).toBeNull();
    expect(panel.kernel.targets.size).toBe(0);
    expect(next.targets.has(TARGET)).toBe(true);
  });

  it('is let go of when the extension ends', () => {
    panel.opens('a');
    live.dispose();
    panel.tells('a', 'at step 0', 'step');
    expect(live.state).toBeNull();
    expect(panel.kernel.targets.size).toBe(0);
  });
});

describe('commands', () => {
  it('are sent only when they are possible', async () => {
    await settled();
    panel.opens('a');
    panel.tells('a', 'at step 0', 'step');
    live.give('over');
    live.give('step');
    expect(panel.kernel.sent).toEqual([{ command: 'step' }]);
  });

  it('that the page does not know are left out, and what is no state is none', () => {
    const state = decodeState({ hunt: { headline: 'x', commands: ['step', 'format', 7] } });
    expect([...state!.possible]).toEqual(['step']);
    for (const bad of [null, 7, {}, { hunt: null }, { hunt: { headline: 7 } }]) {
      expect(decodeState(bad)).toBeNull();
    }
  });

  it('each have a name, a key and a place in the menu', () => {
    const keys = schema['jupyter.lab.shortcuts'].map(({ command }) => command);
    const menu = schema['jupyter.lab.menus'].main[0]!.items[0]!.submenu.items;
    expect(CONTROLS.length).toBeGreaterThan(0);
    for (const { name, button, menu: label, hint } of CONTROLS) {
      expect([button, label, hint]).not.toContain('');
      expect(keys).toContain(`nanhunt:${name}`);
      expect(menu.map(item => item.command)).toContain(`nanhunt:${name}`);
    }
  });
});

describe('the controls', () => {
  it('are there while a hunt is live, and press what is possible', async () => {
    await settled();
    const controls = new Controls(live, trans);
    expect(controls.node.hidden).toBe(true);
    panel.opens('a');
    panel.tells('a', 'at <b>step</b> 0', 'step');
    expect(controls.node.hidden).toBe(false);
    expect(controls.node.querySelector('[role=status]')!.textContent).toBe('at <b>step</b> 0');
    const [step, run] = controls.node.querySelectorAll('button');
    expect(step!.getAttribute('aria-disabled')).toBe('false');
    expect(run!.getAttribute('aria-disabled')).toBe('true');
    step!.click();
    run!.click();
    expect(panel.kernel.sent).toEqual([{ command: 'step' }]);
    controls.dispose();
    panel.tells('a', 'later', 'step');
    expect(controls.node.textContent).not.toContain('later');
  });

  it('leave the focus beside them when they go', async () => {
    await settled();
    const controls = new Controls(live, trans);
    const sidebar = document.createElement('div');
    sidebar.tabIndex = -1;
    sidebar.append(controls.node);
    document.body.append(sidebar);
    panel.opens('a');
    panel.tells('a', 'at step 0', 'stop');
    controls.node.querySelector('button')!.focus();
    panel.hear('comm_close', 'a');
    expect(document.activeElement).toBe(sidebar);
    controls.dispose();
    sidebar.remove();
  });

  it('are read out when the training stands, not ten times a second while it runs', async () => {
    await settled();
    const controls = new Controls(live, trans);
    const headline = controls.node.querySelector('[role=status]')!;
    panel.opens('a');
    panel.tells('a', 'Running: run, step 7', 'pause');
    expect(headline.getAttribute('aria-busy')).toBe('true');
    panel.hear('comm_msg', 'a', { data: { hunt: { headline: 'at step 8', grade: 'calm' } } });
    expect(headline.getAttribute('aria-busy')).toBe('false');
    controls.dispose();
  });
});
