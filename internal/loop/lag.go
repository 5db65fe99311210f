//go:build lag

package loop

import (
	"math/rand/v2"
	"time"
)

// lag makes a loop late, as one is that gets no processor: a build with the tag lag
// (make test-lag) has it sleep for up to 20 ms before every fourth round or so. What
// relies on a loop that answers soon shows then: a barrier that expired before any lane
// had looked said that nothing was in the store.
type lag struct{ next int64 }

func (g *lag) take(l *Loop) {
	if l.g.Now() > g.next && rand.IntN(4) == 0 {
		time.Sleep(rand.N(20 * time.Millisecond))
		// Else a load of a million rounds would take hours.
		g.next = l.g.Now() + int64(rand.N(3*time.Millisecond))
	}
}
