// Immediates, so that a termination in one costs no other. node goes through a list of them and notes where it is behind
// each: terminated in the second, it finds that one used up when it goes on, fails there, and does so for ever; terminated
// in the first, it forgets the others. So it is given lists of one, and what waits is kept here.
function keepImmediates() {
  const {internalBinding} = require('internal/test/binding');
  const {immediateQueue, getTimerCallbacks} = require('internal/timers');
  const {setupTimers, immediateInfo} = internalBinding('timers');
  const {runNextTicks} = require('internal/process/task_queues').setupTaskQueue();
  // Between two timers node calls this.
  const {processImmediate, processTimers} = getTimerCallbacks(() => {
    Atomics.add(shared, CALLBACKS, 1);
    runNextTicks();
  });
  // Whether the event loop is to call again before it goes on (node's `kHasOutstanding`).
  const OUTSTANDING = 2;
  // Those of this turn, which are in no list; and the list of those that were made in it, while node has the other.
  let waiting = [], at = 0, made = null;

  const remove = immediateQueue.remove;
  immediateQueue.remove = function (one) {
    if (made !== null && made.head === one) made.head = one._idleNext;
    if (made !== null && made.tail === one) made.tail = one._idlePrev;
    return Reflect.apply(remove, this, [one]);
  };

  function putBack() {
    if (made !== null && made.head !== null) {
      const {head, tail} = made, others = immediateQueue.head;
      immediateQueue.head = head;
      if (others === null) immediateQueue.tail = tail;
      else [tail._idleNext, others._idlePrev] = [others, tail];
    }
    made = null;
  }

  function turn() {
    [waiting, at] = [[], 0];
    for (let one = immediateQueue.head; one !== null;) {
      waiting.push(one);
      const after = one._idleNext;
      one._idleNext = one._idlePrev = null;
      one = after;
    }
    immediateQueue.head = immediateQueue.tail = null;
  }

  // The next one that was not cleared, and has not begun: one that was not let begin has its turn again.
  function next() {
    while (at < waiting.length && waiting[at]._destroyed) at += 1;
    return at < waiting.length ? waiting[at] : null;
  }

  function oneByOne() {
    take(HELD);
    // The one before may not have come to its end.
    putBack();
    if (immediateInfo[OUTSTANDING] === 0) turn();
    const one = next();
    made = {head: immediateQueue.head, tail: immediateQueue.tail};
    immediateQueue.head = immediateQueue.tail = one;
    // That the first may be terminated in must not lose the others.
    if (waiting.length > at + 1) immediateInfo[OUTSTANDING] = 1;
    Atomics.store(shared, TURN, FREE);
    Atomics.add(shared, CALLBACKS, 1);
    processImmediate();
    putBack();
    // It has said that nothing is left.
    if (next() !== null) immediateInfo[OUTSTANDING] = 1;
  }

  setupTimers(oneByOne, processTimers);
}

// A node that is made otherwise does without.
try { keepImmediates(); } catch {}
