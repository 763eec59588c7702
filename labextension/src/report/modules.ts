/** The modules of a finding: as a tree or in the order of their calls, searched and filtered. */
import type { IFinding, IFrame, ITensorStats } from './format';

/** From harmless to worst; a parent that is folded shows the worst below it. */
export const STATES = [
  'unseen',
  'clean',
  'near',
  'complex_half',
  'inf',
  'nan',
  'producer'
] as const;
export type State = (typeof STATES)[number];

/** Fewer powers of two than this below the dtype's limit are worth a look. */
const NEAR_OVERFLOW = 2;

/** A name of more parts than this is no path, and stands directly below the root. */
const DEEPEST = 64;

export interface IModuleRow {
  /** Qualified name; `""` is the root. */
  readonly path: string;
  /** What is written: the last part of the name in a tree, all of it in a list. */
  readonly label: string;
  readonly level: number;
  readonly state: State;
  /** The call whose output is shown, or null for a module that was only passed through. */
  readonly frame: IFrame | null;
  /** Null for a row that has nothing below it. */
  readonly expanded: boolean | null;
}

export interface IModuleQuery {
  readonly order: 'tree' | 'calls';
  readonly search: string;
  readonly suspicious: boolean;
}

interface INode {
  readonly path: string;
  readonly label: string;
  readonly children: Map<string, INode>;
  frame: IFrame | null;
  state: State;
  below: State;
}

/** How a module's output looks. */
export function stateOf(stats: ITensorStats): State {
  if (stats.nan > 0) {
    return 'nan';
  }
  if (stats.posinf + stats.neginf > 0) {
    return 'inf';
  }
  if (stats.dtype === 'complex32') {
    return 'complex_half';
  }
  return stats.headroom !== null && stats.headroom < NEAR_OVERFLOW ? 'near' : 'clean';
}

export function suspicious(state: State): boolean {
  return STATES.indexOf(state) >= STATES.indexOf('near');
}

function worse(a: State, b: State): State {
  return STATES.indexOf(a) >= STATES.indexOf(b) ? a : b;
}

/** Modules of one finding, and which of them are unfolded. */
export class ModuleModel {
  constructor(finding: IFinding) {
    this._producer = finding.module;
    this._frames = finding.frames;
    for (const frame of finding.frames) {
      const node = this._node(frame.module);
      const state = stateOf(frame.output);
      if (node.frame === null || worse(state, node.state) === state) {
        node.frame = frame;
        node.state = worse(state, node.state);
      }
    }
    if (finding.module !== null) {
      this._node(finding.module).state = 'producer';
    }
    this.size = this._settle(this._root);
    if (this.size > 200) {
      this._foldAllButTheCulprit();
    }
  }

  /** Modules in the tree, those only passed through included. */
  readonly size: number;

  /** Calls that were recorded. */
  get calls(): number {
    return this._frames.length;
  }

  toggle(path: string): void {
    if (!this._folded.delete(path)) {
      this._folded.add(path);
    }
  }

  rows(query: IModuleQuery): IModuleRow[] {
    const words = query.search.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (path: string, kind: string, state: State): boolean => {
      const name = `${path} ${kind}`.toLowerCase();
      return (!query.suspicious || suspicious(state)) && words.every(word => name.includes(word));
    };
    if (query.order === 'calls') {
      return this._frames
        .map(frame => ({ frame, state: this._callState(frame) }))
        .filter(({ frame, state }) => matches(frame.module, frame.kind, state))
        .map(({ frame, state }) => {
          return {
            path: frame.module,
            label: frame.module,
            level: 1,
            state,
            frame,
            expanded: null
          };
        });
    }
    const everything = words.length === 0 && !query.suspicious;
    const rows: IModuleRow[] = [];
    this._collect(this._root, 1, everything ? null : matches, rows);
    return rows;
  }

  private _callState(frame: IFrame): State {
    const last = frame === this._frames[this._frames.length - 1];
    const state = stateOf(frame.output);
    return last && frame.module === this._producer && suspicious(state) ? 'producer' : state;
  }

  /** Appends a node's rows; false when neither it nor anything below it is wanted. */
  private _collect(
    node: INode,
    level: number,
    matches: ((path: string, kind: string, state: State) => boolean) | null,
    rows: IModuleRow[]
  ): boolean {
    const at = rows.length;
    const parent = node.children.size > 0;
    // A search shows what it finds, whatever is folded.
    const expanded = matches !== null || !this._folded.has(node.path);
    const { path, label, frame } = node;
    const state = parent && !expanded ? worse(node.state, node.below) : node.state;
    rows.push({ path, label, level, state, frame, expanded: parent ? expanded : null });
    let wanted = matches === null || matches(path, frame?.kind ?? '', node.state);
    if (expanded) {
      for (const child of node.children.values()) {
        wanted = this._collect(child, level + 1, matches, rows) || wanted;
      }
    }
    if (!wanted) {
      rows.length = at;
    }
    return wanted;
  }

  /** Finds or makes the node of a path. */
  private _node(path: string): INode {
    const known = this._nodes.get(path);
    if (known) {
      return known;
    }
    const deep = path.split('.', DEEPEST + 1).length > DEEPEST;
    const cut = deep ? -1 : path.lastIndexOf('.');
    const parent = this._node(cut < 0 ? '' : path.slice(0, cut));
    const node = newNode(path, path.slice(cut + 1));
    parent.children.set(path, node);
    this._nodes.set(path, node);
    return node;
  }

  /** Counts the modules, and tells every parent the worst state below it. */
  private _settle(node: INode): number {
    let size = 1;
    for (const child of node.children.values()) {
      size += this._settle(child);
      node.below = worse(node.below, worse(child.state, child.below));
    }
    return size;
  }

  private _foldAllButTheCulprit(): void {
    const culprit = this._producer ?? '';
    for (const [path, node] of this._nodes) {
      const above = path === '' || culprit === path || culprit.startsWith(`${path}.`);
      if (node.children.size > 0 && !above) {
        this._folded.add(path);
      }
    }
  }

  private readonly _root: INode = newNode('', '');
  private readonly _nodes = new Map<string, INode>([['', this._root]]);
  private readonly _folded = new Set<string>();
  private readonly _frames: readonly IFrame[];
  private readonly _producer: string | null;
}

function newNode(path: string, label: string): INode {
  return { path, label, children: new Map(), frame: null, state: 'unseen', below: 'unseen' };
}
