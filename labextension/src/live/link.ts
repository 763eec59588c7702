/**
 * The line between one notebook and the live hunt of its kernel.
 *
 * Of all the connections that a page has to one kernel, JupyterLab gives comms to the first alone.
 * So states are read from the messages that every connection sees, and commands go through the
 * comm where there is one (kernels with subshells take them while a cell runs) and else as a plain
 * message.
 */
import type { ISessionContext } from '@jupyterlab/apputils';
import { KernelMessage } from '@jupyterlab/services';
import type { Kernel } from '@jupyterlab/services';
import type { JSONObject } from '@lumino/coreutils';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { decodeState, TARGET } from './state';
import type { ILiveState } from './state';

/** Statuses of a kernel that has lost all it knew. */
const LOST: readonly Kernel.Status[] = [
  'starting',
  'restarting',
  'autorestarting',
  'terminating',
  'dead'
];

/** What is needed of a notebook's session. */
export type LinkContext = Pick<
  ISessionContext,
  'session' | 'kernelChanged' | 'statusChanged' | 'connectionStatusChanged' | 'iopubMessage'
>;

export class Link implements IDisposable {
  constructor(private readonly _context: LinkContext) {
    _context.kernelChanged.connect(this._onKernel, this);
    _context.statusChanged.connect(this._onStatus, this);
    _context.connectionStatusChanged.connect(this._onConnection, this);
    _context.iopubMessage.connect(this._onMessage, this);
    this._onKernel();
  }

  /** The state of the live hunt; null when there is none. */
  get state(): ILiveState | null {
    return this._state;
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Gives a command; one that is not possible now is not sent. */
  give(command: string): void {
    if (this._state?.possible.has(command)) {
      this._send({ command });
    }
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      this._context.kernelChanged.disconnect(this._onKernel, this);
      this._context.statusChanged.disconnect(this._onStatus, this);
      this._context.connectionStatusChanged.disconnect(this._onConnection, this);
      this._context.iopubMessage.disconnect(this._onMessage, this);
      this._leave();
      Signal.clearData(this);
    }
  }

  private _onKernel(): void {
    this._leave();
    this._kernel = this._context.session?.kernel ?? null;
    this._kernel?.registerCommTarget(TARGET, this._accept);
    void this._look();
  }

  private _onStatus(_: unknown, status: Kernel.Status): void {
    if (LOST.includes(status)) {
      this._forget();
      this._looked = false;
    } else if (status === 'idle' && !this._looked) {
      void this._look();
    }
  }

  /** Messages may have been missed while there was no connection. */
  private _onConnection(_: unknown, status: Kernel.ConnectionStatus): void {
    if (status === 'connected') {
      void this._look();
    } else if (this._state) {
      // Commands given meanwhile would wait, and then be obeyed all at once.
      this._set({ ...this._state, possible: new Set() });
    }
  }

  /** Asks the kernel which hunt is live, and that for its state. */
  private async _look(): Promise<void> {
    const kernel = this._kernel;
    if (!kernel || kernel.isDisposed || kernel.connectionStatus !== 'connected') {
      return;
    }
    this._looked = true;
    const opened = this._opened;
    let found: readonly string[] = [];
    try {
      const { content } = await kernel.requestCommInfo({ target_name: TARGET });
      found = content.status === 'ok' ? Object.keys(content.comms) : [];
    } catch {
      return; // the kernel went away meanwhile; the next one is asked anew
    }
    if (this._disposed || kernel !== this._kernel || opened !== this._opened) {
      return; // or a hunt has begun meanwhile, of which the answer may not know
    }
    const id = found[found.length - 1];
    if (id === undefined) {
      this._forget();
      return;
    }
    if (id !== this._id) {
      this._forget();
      this._id = id;
    }
    if (!this._comm && kernel.handleComms && !kernel.hasComm(id)) {
      this._comm = kernel.createComm(TARGET, id);
    }
    this._send({ ask: 'state' });
  }

  /** Takes the comm that the kernel opens; without this JupyterLab would close it. */
  private readonly _accept = (comm: Kernel.IComm): void => {
    this._comm = comm;
  };

  private _onMessage(_: unknown, message: KernelMessage.IMessage): void {
    if (KernelMessage.isCommOpenMsg(message)) {
      if (message.content.target_name === TARGET && message.content.comm_id !== this._id) {
        this._forget(message.content.comm_id);
        this._opened++;
        this._id = message.content.comm_id;
      }
    } else if (KernelMessage.isCommMsgMsg(message)) {
      if (message.content.comm_id === this._id) {
        const state = decodeState(message.content.data);
        if (state) {
          this._set(state);
        }
      }
    } else if (KernelMessage.isCommCloseMsg(message) && message.content.comm_id === this._id) {
      this._forget();
    }
  }

  private _send(data: JSONObject): void {
    const kernel = this._kernel;
    if (!kernel || kernel.isDisposed || this._id === null) {
      return;
    }
    if (this._comm && !this._comm.isDisposed) {
      this._comm.send(data);
      return;
    }
    const message = KernelMessage.createMessage<KernelMessage.ICommMsgMsg<'shell'>>({
      msgType: 'comm_msg',
      channel: 'shell',
      username: kernel.username,
      session: kernel.clientId,
      content: { comm_id: this._id, data }
    });
    kernel.sendShellMessage(message, false, true);
  }

  /** Lets go of the comm here, unless it is this one; the kernel's side and other pages keep it. */
  private _forget(except: string | null = null): void {
    if (this._comm && this._comm.commId !== except) {
      this._comm.dispose();
      this._comm = null;
    }
    this._id = null;
    this._set(null);
  }

  private _leave(): void {
    this._forget();
    if (this._kernel && !this._kernel.isDisposed) {
      this._kernel.removeCommTarget(TARGET, this._accept);
    }
    this._kernel = null;
    this._looked = false;
  }

  private _set(state: ILiveState | null): void {
    if (state !== this._state) {
      this._state = state;
      this._changed.emit();
    }
  }

  private readonly _changed = new Signal<this, void>(this);
  private _kernel: Kernel.IKernelConnection | null = null;
  private _comm: Kernel.IComm | null = null;
  private _id: string | null = null;
  private _state: ILiveState | null = null;
  private _looked = false;
  /** How many hunts have begun while this page listened. */
  private _opened = 0;
  private _disposed = false;
}
