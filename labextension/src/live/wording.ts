/** What the commands are called: on buttons, in menus, and in full. */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandName } from './state';

export interface ICommandWords {
  /** On a button, as in the panel. */
  readonly short: string;
  /** In the palette and in menus. */
  readonly label: string;
  readonly caption: string;
}

export function commandWords(trans: TranslationBundle): Record<CommandName, ICommandWords> {
  return {
    step: {
      short: trans.__('Step'),
      label: trans.__('Step'),
      caption: trans.__('One training step; paused inside a step: the rest of it')
    },
    run: {
      short: trans.__('Run'),
      label: trans.__('Run Steps'),
      caption: trans.__('Steps until something is bad, or as many as the panel says')
    },
    hunt: {
      short: trans.__('Hunt'),
      label: trans.__('Hunt'),
      caption: trans.__('Steps until something is bad, then finds the cause')
    },
    pause: {
      short: trans.__('Pause'),
      label: trans.__('Pause'),
      caption: trans.__('Stop at the next module, or after this step')
    },
    into: {
      short: trans.__('Into'),
      label: trans.__('Step Into Module'),
      caption: trans.__('On to the next module, inside this one if there is any')
    },
    over: {
      short: trans.__('Over'),
      label: trans.__('Step Over Module'),
      caption: trans.__('Run the module that the step stands before')
    },
    out: {
      short: trans.__('Out'),
      label: trans.__('Step Out of Module'),
      caption: trans.__('On until the module around this one has run')
    },
    resume: {
      short: trans.__('Continue'),
      label: trans.__('Continue'),
      caption: trans.__('On to the next breakpoint')
    },
    back: {
      short: trans.__('Back'),
      label: trans.__('Back'),
      caption: trans.__('To the start of this step, then to the steps before')
    },
    replay: {
      short: trans.__('Replay step'),
      label: trans.__('Replay Step'),
      caption: trans.__('Run the last step once more and measure every module')
    },
    stop: {
      short: trans.__('Stop'),
      label: trans.__('Stop Hunt'),
      caption: trans.__('Undo the unfinished step and let go of everything')
    }
  };
}
