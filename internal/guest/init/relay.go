package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// relay joins two character devices. What comes from the second and is no agent's line
// (JSON) is its guest's own talk, and goes to the console.
func relay(q *agent.Request) error {
	if len(q.Args) != 1 {
		return errors.New("relay wants two devices")
	}
	near, err := os.OpenFile(q.Path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer near.Close()
	far, err := os.OpenFile(q.Args[0], os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer far.Close()
	if err := rawTTY(int(far.Fd())); err != nil {
		return err
	}
	end := make(chan error, 2)
	go func() {
		_, err := io.Copy(far, near)
		end <- err
	}()
	go func() {
		in := bufio.NewReaderSize(far, 1<<20)
		for {
			line, err := in.ReadBytes('\n')
			switch {
			case err != nil:
				end <- err
				return
			case line[0] != '{':
				fmt.Printf("%s: %s", q.Args[0], line)
			default:
				if _, err := near.Write(line); err != nil {
					end <- err
					return
				}
			}
		}
	}()
	return <-end
}
