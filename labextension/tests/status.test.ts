import { Signal } from '@lumino/signaling';
import { expect, it } from 'vitest';
import type { Live } from '../src/live/live';
import type { Current } from '../src/notebook/current';
import { StatusItem } from '../src/notebook/status';
import { words } from './words';

function told(...severities: string[]): string {
  const findings = severities.map(severity => ({ severity }));
  const watch = { entries: [{ shown: { kind: 'report', report: { findings } } }] };
  const current = { changed: new Signal<object, void>({}), watch };
  const live = { changed: new Signal<object, void>({}), state: null };
  const item = new StatusItem(
    current as unknown as Current,
    live as unknown as Live,
    words,
    () => undefined
  );
  const text = item.node.textContent;
  item.dispose();
  return text;
}

it('the status bar says how many findings there are and whether one is critical', () => {
  expect(told()).toBe('✓ no finding');
  expect(told('warning', 'critical')).toBe('✗ 2 findings');
  expect(told('warning')).toBe('△ 1 finding');
});
