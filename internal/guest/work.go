package guest

import (
	"encoding/json"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// Work starts verifying writers on q.Path, see agent.Progress; one run at a time.
func (l *Line) Work(q agent.Request) error {
	q.Op = agent.Work
	_, err := l.Do(q, time.Minute)
	return err
}

// Worked tells how the writers are; with stop it waits for their end, limit at most,
// and has every slot checked.
func (l *Line) Worked(stop bool, limit time.Duration) (p agent.Progress, err error) {
	r, err := l.Do(agent.Request{Op: agent.Worked, Stop: stop}, limit)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(r.Out, &p)
}
