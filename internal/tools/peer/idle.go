package peer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vtgt/vtgt/api"
)

// Idle waits until nobody is logged in to a disk of vtgt: what an initiator that has
// gone had under way may still reach the disk until its session has ended. Of other
// targets nothing is known.
func (s *Server) Idle(ctx context.Context, disk string) error {
	if s.Socket == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c := api.NewClient(s.Socket)
	defer c.Close()
	for {
		ss, err := c.Sessions(ctx)
		if err != nil {
			return fmt.Errorf("asking vtgt for its sessions: %w", err)
		}
		if !slices.ContainsFunc(ss, func(x api.Session) bool { return x.IQN == iqn+disk }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("a session with %s%s does not end", iqn, disk)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
