package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// didTimeOut is Linux's DID_TIME_OUT (include/scsi/scsi_status.h).
const didTimeOut = 3

// expire sends a command many times at once and wants each to run out of time.
func expire(q *agent.Request) error {
	ends := make(chan error)
	for range q.Jobs {
		go func() {
			_, _, err := passThrough(q.Path, q.Data, q.Size, time.Duration(max(q.Seconds, 1))*time.Second)
			ends <- err
		}()
	}
	var bad error
	n := 0
	for range q.Jobs {
		err := <-ends
		var h errHost
		if errors.As(err, &h) && h.host == didTimeOut {
			n++
			continue
		}
		if err == nil {
			err = errors.New("a command has ended well")
		}
		bad = err
	}
	if bad != nil {
		return fmt.Errorf("%d of %d ran out of time: %w", n, q.Jobs, bad)
	}
	return nil
}
