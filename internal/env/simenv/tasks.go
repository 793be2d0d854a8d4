package simenv

// Tasks holds the background tasks of one run of a process. Nothing runs by
// itself: the simulator picks which task takes its next step.
type Tasks struct {
	queue []task
	dead  bool
}

type task struct {
	name string
	step func() (done bool)
}

// Go implements env.Tasks. The first step comes in a later turn. A process that
// has crashed begins nothing.
func (t *Tasks) Go(name string, step func() (done bool)) {
	if !t.dead {
		t.queue = append(t.queue, task{name, step})
	}
}

// Pending counts the tasks that are not done.
func (t *Tasks) Pending() int { return len(t.queue) }

// Name is the name of task pick, counted from 0 in the order of their beginning.
func (t *Tasks) Name(pick int) string { return t.queue[pick].name }

// RunOne takes one step of task pick, in [0, Pending()), and forgets the task if
// that was its last.
func (t *Tasks) RunOne(pick int) {
	require(pick >= 0 && pick < len(t.queue), "task %d of %d", pick, len(t.queue))
	// The step may begin other tasks, which go to the end, or crash the process.
	if t.queue[pick].step() && !t.dead {
		t.queue = append(t.queue[:pick], t.queue[pick+1:]...)
	}
}

func (t *Tasks) kill() { t.queue, t.dead = nil, true }
