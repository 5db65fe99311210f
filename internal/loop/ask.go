package loop

// askSpins is how many times Config.Spin a loop looks for a request that it expects. A
// client at depth 1 asks again 15 to 70 us after its answer, most of which is the waking of
// its own thread. Where nobody polls, an idle processor's wake-up costs us 10 to 40 us more
// (a virtual machine's; qemu-img's 4 KiB reads took 87 us with it and 39 without), for as
// much processor time as the looking.
const askSpins = 5

// asker decides whether a loop looks for the next request of a peer that it has answered
// (Loop.Expect) before it sleeps. Each look is a system call, so it must pay: that is when
// requests come within max, and the loop begins only after some that did in a row.
type asker struct {
	max   int64 // ns, the longest look; <= 0: never
	score int   // > 0: look
	soon  int   // requests in a row that came soon, without a look
	need  int   // so many are needed to begin
}

const (
	askBest  = 16   // of score
	askTrial = 2    // score to begin with: one miss ends it
	askFirst = 8    // of need; doubled whenever looking has not paid
	askMost  = 4096 // of need
)

// hit: a look found something.
func (a *asker) hit() {
	if a.score < askBest {
		a.score++
		return
	}
	a.need = askFirst
}

// miss: a look of max found nothing. It costs as much as several hits gain: half of the
// score goes, and more.
func (a *asker) miss() {
	if a.score = a.score/2 - 1; a.score <= 0 {
		a.score, a.soon = 0, 0
		a.need = min(max(2*a.need, askFirst), askMost)
	}
}

// slept learns from d ns of waiting for a request without a look. A quarter more than max
// is let pass for the wake-up.
func (a *asker) slept(d int64) {
	if d > a.max+a.max/4 {
		a.soon = 0
		return
	}
	if a.soon++; a.soon >= max(a.need, askFirst) {
		a.soon, a.score = 0, askTrial
	}
}
