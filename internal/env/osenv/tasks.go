package osenv

import "sync"

// Tasks runs each task on a goroutine of its own. A panic in a step ends the
// process, as any panic should.
type Tasks struct {
	mu      sync.Mutex
	stopped bool
	stop    chan struct{}
	running sync.WaitGroup
}

// NewTasks returns a runner with no task.
func NewTasks() *Tasks { return &Tasks{stop: make(chan struct{})} }

// Go calls step again and again on a new goroutine until it reports that it is
// done or the runner is stopped. After Stop it does nothing.
func (t *Tasks) Go(_ string, step func() (done bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.running.Add(1)
	go func() {
		defer t.running.Done()
		for {
			select {
			case <-t.stop:
				return
			default:
			}
			if step() {
				return
			}
		}
	}()
}

// Stop lets the step that each task is in finish, starts no other, and returns
// when all have ended. It must not be called from a step.
func (t *Tasks) Stop() {
	t.mu.Lock()
	if !t.stopped {
		t.stopped = true
		close(t.stop)
	}
	t.mu.Unlock()
	t.running.Wait()
}
