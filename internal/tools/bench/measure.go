package main

import (
	"context"
	"time"

	"github.com/vtgt/vtgt/internal/tools/peer"
)

// A contestant is a target and the image it serves.
type contestant struct {
	srv   *peer.Server
	disk  string
	image string
}

// A sample is one run of one cell against one contestant.
type sample struct {
	Requests  int     `json:"requests"`
	Seconds   float64 `json:"seconds"`
	IOPS      float64 `json:"iops"`
	CPUMicros float64 `json:"cpu_us_per_io"` // the target's processor time
	Client    float64 `json:"client_cpu"`    // of one processor, 0…1
	Others    float64 `json:"others_cpu"`    // processors that neither of the two used
}

// calibrate finds how many requests take about as long as is wanted.
func calibrate(ctx context.Context, t contestant, c cell, want time.Duration) (int, error) {
	n := 64
	if c.Block < 64<<10 {
		n = 512
	}
	for range 4 {
		took, _, err := drive(ctx, t.srv.URL(t.disk), c, n)
		if err != nil {
			return 0, err
		}
		// Short runs tell little: grow at most by 16 and look again.
		next := int(float64(n) * min(16, want.Seconds()/max(took.Seconds(), 1e-4)))
		if took > want/4 {
			return max(next, 32), nil
		}
		n = max(next, n)
	}
	return n, nil
}

func measure(ctx context.Context, t contestant, c cell, n int) (sample, error) {
	if err := settle(t.image); err != nil {
		return sample{}, err
	}
	cpu0, err := t.srv.CPU()
	if err != nil {
		return sample{}, err
	}
	busy0, err := busy()
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	took, client, err := drive(ctx, t.srv.URL(t.disk), c, n)
	if err != nil {
		return sample{}, err
	}
	whole := time.Since(begin)
	cpu1, err := t.srv.CPU()
	if err != nil {
		return sample{}, err
	}
	busy1, err := busy()
	if err != nil {
		return sample{}, err
	}
	used := cpu1 - cpu0
	return sample{
		Requests:  n,
		Seconds:   took.Seconds(),
		IOPS:      float64(n) / max(took.Seconds(), 1e-9),
		CPUMicros: float64(used.Microseconds()) / float64(n),
		Client:    client.Seconds() / max(took.Seconds(), 1e-9),
		Others:    max(0, (busy1-busy0-used-client).Seconds()/whole.Seconds()),
	}, nil
}
