import { MessageLoop } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { expect, it } from 'vitest';
import type { Live } from '../src/live/live';
import type { Current } from '../src/notebook/current';
import { Sidebar } from '../src/notebook/sidebar';
import { decodeReport } from '../src/report/decode';
import { samples, words } from './words';

function sidebar(reports: number): Sidebar {
  const decoded = decodeReport(samples.reports['cell']!.report);
  const report = decoded.ok ? decoded.report : null;
  const entry = { cell: {}, count: 3, shown: { kind: 'report', report } };
  const watch = { panel: { title: null }, entries: Array<object>(reports).fill(entry) };
  const current = { changed: new Signal<object, void>({}), watch };
  const live = { changed: new Signal<object, void>({}), state: null, can: () => false };
  const made = new Sidebar(current as unknown as Current, live as unknown as Live, words, {
    reveal: () => undefined,
    revealReport: () => undefined
  });
  MessageLoop.sendMessage(made, Widget.Msg.UpdateRequest);
  return made;
}

it('the sidebar lists the reports of a notebook', () => {
  const made = sidebar(3);
  expect(made.node.querySelectorAll('section')).toHaveLength(3);
  expect(made.node.textContent).not.toContain('older');
  made.dispose();
});

it('the sidebar lists no more reports than a person looks at, and says so', () => {
  const made = sidebar(5_000);
  expect(made.node.querySelectorAll('section')).toHaveLength(100);
  expect(made.node.textContent).toContain('5,000 reports');
  expect(made.node.textContent).toContain('and 4,900 older ones');
  made.dispose();
});
