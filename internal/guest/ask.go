package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/vtgt/vtgt/internal/guest/agent"
)

// answerTime is how long the agent may take to answer what it does at once, and
// runTime how long a program may run in the guest: TCG on a busy machine is slow.
const (
	answerTime = 5 * time.Minute
	runTime    = 5 * time.Minute
)

// Do sends one request and waits for its answer. An answer with Err set is an error.
// After a request that was not answered in time the agent may be busy for good;
// later requests then fail in the same way.
func (l *Line) Do(q agent.Request, limit time.Duration) (*agent.Response, error) {
	l.ask.Lock()
	defer l.ask.Unlock()
	l.id++
	q.ID = l.id
	b, err := json.Marshal(&q)
	if err != nil {
		return nil, err
	}
	_ = l.conn.SetDeadline(time.Now().Add(limit))
	if _, err := l.conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("guest: %s: %w", q.Op, err)
	}
	for {
		line, err := l.rd.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("guest: %s %v: no answer: %w", q.Op, q.Args, err)
		}
		var r agent.Response
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("guest: %s: bad answer %q: %w", q.Op, line, err)
		}
		if r.ID < q.ID {
			continue // of a request that nobody waits for any more
		}
		if r.Err != "" {
			return &r, fmt.Errorf("guest: %s %s%v: %s", q.Op, q.Path, q.Args, r.Err)
		}
		return &r, nil
	}
}

// ErrExit is a program in the guest that did not exit with 0.
var ErrExit = errors.New("exit status is not 0")

// Run runs a program in the guest to its end, runTime at most, and returns what
// it printed.
func (l *Line) Run(args ...string) (string, error) {
	r, err := l.Do(agent.Request{Op: agent.Exec, Args: args, Seconds: int(runTime.Seconds())}, answerTime+runTime)
	if err != nil {
		return "", err
	}
	if r.Exit != 0 {
		return string(r.Out), fmt.Errorf("guest: %v: %w but %d: %s", args, ErrExit, r.Exit, r.Out)
	}
	return string(r.Out), nil
}

// Spawn starts a program that goes on by itself and returns its process id; what it
// prints goes to the console.
func (l *Line) Spawn(args ...string) (int, error) {
	return l.spawn(agent.Request{Op: agent.Spawn, Args: args})
}

// SpawnNoSync is Spawn with fsync and its like switched off: they succeed and do
// nothing. Tests of durability show by it that they can fail.
func (l *Line) SpawnNoSync(args ...string) (int, error) {
	return l.spawn(agent.Request{Op: agent.Spawn, Args: args, NoSync: true})
}

func (l *Line) spawn(q agent.Request) (int, error) {
	r, err := l.Do(q, answerTime)
	if err != nil {
		return 0, err
	}
	return r.PID, nil
}

// SpawnDo does one request beside others and returns the process that does; Wait tells
// how it ended.
func (l *Line) SpawnDo(q agent.Request) (int, error) {
	b, err := json.Marshal(&q)
	if err != nil {
		return 0, err
	}
	return l.Spawn(agent.Program, agent.DoArg, string(b))
}

// Wait waits for the end of a program that Spawn started (whole seconds); any status
// but 0 is an error.
func (l *Line) Wait(pid int, limit time.Duration) error {
	r, err := l.Do(agent.Request{Op: agent.Wait, PID: pid, Seconds: int(limit.Seconds())}, limit+time.Minute)
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("guest: process %d: %w but %d", pid, ErrExit, r.Exit)
	}
	return err
}

// Shell runs a program on the guest's console until it ends (Options.Terminal).
func (l *Line) Shell(args ...string) error {
	_, err := l.Do(agent.Request{Op: agent.Shell, Args: args}, 24*time.Hour)
	return err
}

// Signal sends a signal to a program that Spawn started, and waits for its end
// where limit is not 0 (whole seconds).
func (l *Line) Signal(pid, signal int, limit time.Duration) error {
	_, err := l.Do(agent.Request{Op: agent.Signal, PID: pid, Signal: signal, Seconds: int(limit.Seconds())}, limit+answerTime)
	return err
}

// Insmod loads modules that the image has, with all they depend on.
func (l *Line) Insmod(k *Kernel, params string, names ...string) error {
	files, err := k.Modules(names...)
	if err != nil {
		return err
	}
	for i, f := range files {
		files[i] = moduleDir + filepath.Base(f)
	}
	_, err = l.Do(agent.Request{Op: agent.Insmod, Args: files, Data: []byte(params)}, answerTime)
	return err
}

// Rmmod unloads a module, which nobody must use.
func (l *Line) Rmmod(name string) error {
	_, err := l.Do(agent.Request{Op: agent.Rmmod, Path: name}, answerTime)
	return err
}

// Mount mounts what source names at target; options may be empty.
func (l *Line) Mount(source, target, fstype, options string) error {
	_, err := l.Do(agent.Request{Op: agent.Mount, Args: []string{source, target, fstype, options}}, answerTime)
	return err
}

// Umount unmounts target.
func (l *Line) Umount(target string) error {
	_, err := l.Do(agent.Request{Op: agent.Umount, Path: target}, answerTime)
	return err
}

// Read returns a file of the guest.
func (l *Line) Read(path string) (string, error) {
	r, err := l.Do(agent.Request{Op: agent.Get, Path: path}, answerTime)
	if err != nil {
		return "", err
	}
	return string(r.Out), nil
}

// Put writes a file in the guest, mode 0600, and makes its folder.
func (l *Line) Put(path, text string) error {
	_, err := l.Do(agent.Request{Op: agent.Put, Path: path, Data: []byte(text)}, answerTime)
	return err
}

// PutSync replaces a file in the guest and makes it stable.
func (l *Line) PutSync(path, text string) error {
	_, err := l.Do(agent.Request{Op: agent.Put, Path: path, Data: []byte(text), Sync: true}, answerTime)
	return err
}

// ReadDirect reads n bytes at the start of path past the page cache: a disk that path
// names gets a command.
func (l *Line) ReadDirect(path string, n int) error {
	_, err := l.Do(agent.Request{Op: agent.Direct, Path: path, Size: n}, answerTime)
	return err
}

// Log is the kernel's log.
func (l *Line) Log() (string, error) {
	r, err := l.Do(agent.Request{Op: agent.Log}, answerTime)
	if err != nil {
		return "", err
	}
	return string(r.Out), nil
}

// Glob returns the paths that match pattern.
func (l *Line) Glob(pattern string) ([]string, error) {
	r, err := l.Do(agent.Request{Op: agent.Glob, Path: pattern}, answerTime)
	if err != nil || len(r.Out) == 0 {
		return nil, err
	}
	return strings.Split(string(r.Out), "\n"), nil
}

// Await polls until a path that matches pattern is there, and returns the first.
func (l *Line) Await(pattern string, limit time.Duration) (string, error) {
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		names, err := l.Glob(pattern)
		if err != nil {
			return "", err
		}
		if len(names) > 0 {
			return names[0], nil
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("guest: no %s within %v", pattern, limit)
		}
	}
}
