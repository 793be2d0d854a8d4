package osenv

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is an io_uring (io_uring(7)) that is asked for nothing but data syncs. A
// goroutine that blocks in fdatasync keeps one of the runtime's processors until
// its monitor takes that away after 20 us and more, and keeps the monitor awake; an
// end that the ring reports costs what news of a connection does. In return two
// more threads have their turns before it is known, so a ring is for those who have
// something else to do meanwhile (docs/decisions/0048).
type ring struct {
	fd     int
	events *os.File // an eventfd(2) that counts completions; polled, so reading it blocks no thread

	// mu guards the submission queue, of which the kernel reads what lies before
	// its tail, and under whose numbers done functions wait.
	mu      sync.Mutex
	tail    *atomic.Uint32
	mask    uint32
	indices []uint32
	entries []submission
	waiting []func(error) // by the user data of a submission
	free    []uint32      // numbers that nobody waits under

	// The completion queue belongs to reap.
	head, last *atomic.Uint32
	ended      []completion
	endedMask  uint32
}

// ringEntries are how many syncs may be under way in the process; those beyond are
// made by their callers. A member has one.
const ringEntries = 16

// The kernel's structures and numbers, from io_uring_setup(2) and io_uring_enter(2).
type (
	ringParams struct {
		submissions, completions, flags, threadCPU, threadIdle, features, workers uint32
		_                                                                         [3]uint32

		submission struct {
			head, tail, mask, entries, flags, dropped, array, _ uint32
			_                                                   uint64
		}
		completion struct {
			head, tail, mask, entries, overflow, array, flags, _ uint32
			_                                                    uint64
		}
	}
	submission struct {
		op, flags     uint8
		priority      uint16
		fd            int32
		off, addr     uint64
		length, oflag uint32
		user          uint64
		_             [3]uint64
	}
	completion struct {
		user   uint64
		result int32
		flags  uint32
	}
)

const (
	opFsync         = 3
	syncsDataOnly   = 1
	registerEventfd = 4
	// nativeWorkers is the feature by which the threads that sync are threads of
	// this process (Linux 5.12): older rings are left alone.
	nativeWorkers = 1 << 9

	submissionQueue = 0
	completionQueue = 0x8000000
	submissionArray = 0x10000000
)

// theRing is the process's, nil where there is none: a kernel may be too old, or
// its administrator or a container's profile may forbid it.
var theRing = sync.OnceValue(func() *ring {
	r, err := newRing()
	if err != nil {
		return nil
	}
	go r.reap()
	return r
})

// newRing makes a ring, for the life of the process if all goes well.
func newRing() (r *ring, err error) {
	var p ringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	r = &ring{fd: int(fd)}
	defer func() {
		if err != nil {
			r.discard()
		}
	}()
	if p.features&nativeWorkers == 0 {
		return nil, unix.ENOSYS
	}
	if err := r.mapQueues(&p); err != nil {
		return nil, err
	}
	counter, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	r.events = os.NewFile(uintptr(counter), "syncs")
	number := int32(counter)
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, fd, registerEventfd, uintptr(unsafe.Pointer(&number)), 1, 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return r, nil
}

// mapQueues finds the queues' places in memory that the kernel shares.
func (r *ring) mapQueues(p *ringParams) error {
	sq, err := r.mapped(submissionQueue, int(p.submission.array)+int(p.submissions)*4)
	if err != nil {
		return err
	}
	cq, err := r.mapped(completionQueue, int(p.completion.array)+int(p.completions)*int(unsafe.Sizeof(completion{})))
	if err != nil {
		return err
	}
	array, err := r.mapped(submissionArray, int(p.submissions)*int(unsafe.Sizeof(submission{})))
	if err != nil {
		return err
	}
	r.tail = (*atomic.Uint32)(unsafe.Pointer(&sq[p.submission.tail]))
	r.mask = *(*uint32)(unsafe.Pointer(&sq[p.submission.mask]))
	r.indices = unsafe.Slice((*uint32)(unsafe.Pointer(&sq[p.submission.array])), p.submissions)
	r.entries = unsafe.Slice((*submission)(unsafe.Pointer(&array[0])), p.submissions)
	r.head = (*atomic.Uint32)(unsafe.Pointer(&cq[p.completion.head]))
	r.last = (*atomic.Uint32)(unsafe.Pointer(&cq[p.completion.tail]))
	r.endedMask = *(*uint32)(unsafe.Pointer(&cq[p.completion.mask]))
	r.ended = unsafe.Slice((*completion)(unsafe.Pointer(&cq[p.completion.array])), p.completions)
	r.waiting = make([]func(error), p.submissions)
	for number := range p.submissions {
		r.free = append(r.free, number)
	}
	return nil
}

func (r *ring) mapped(what int64, size int) ([]byte, error) {
	return unix.Mmap(r.fd, what, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// discard gives back what a ring that is not to be has taken; its memory goes with
// the descriptor and the process.
func (r *ring) discard() {
	if r.events != nil {
		r.events.Close()
	}
	unix.Close(r.fd)
}

// start begins a data sync of an open file and says whether it could. done is then
// called once, on another goroutine. The kernel holds the file until then, closed or
// not.
func (r *ring) start(file uintptr, done func(error)) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) == 0 {
		return false
	}
	number := r.free[len(r.free)-1]
	tail := r.tail.Load()
	at := tail & r.mask
	r.entries[at] = submission{op: opFsync, fd: int32(file), oflag: syncsDataOnly, user: uint64(number)}
	r.indices[at] = at
	r.waiting[number] = done
	r.tail.Store(tail + 1)
	// The call does not wait: a sync is always handed to one of the ring's threads.
	taken, _, _ := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 0, 0, 0, 0)
	if taken != 1 { // -1 is an error
		r.tail.Store(tail)
		r.waiting[number] = nil
		return false
	}
	r.free = r.free[:len(r.free)-1]
	return true
}

// reap reports syncs that have ended, until the ring is discarded.
func (r *ring) reap() {
	var count [8]byte
	for {
		if _, err := r.events.Read(count[:]); err != nil {
			return
		}
		for r.head.Load() != r.last.Load() {
			at := r.head.Load()
			end := r.ended[at&r.endedMask]
			r.head.Store(at + 1)
			r.take(uint32(end.user))(failure(end.result))
		}
	}
}

// take returns who waits under a number, which is free then.
func (r *ring) take(number uint32) func(error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := r.waiting[number]
	r.waiting[number] = nil
	r.free = append(r.free, number)
	return done
}

// failure is what a completion's result says.
func failure(result int32) error {
	if result < 0 {
		return syscall.Errno(-result)
	}
	return nil
}
