package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/sys"
)

// logFlags are the flags about the log.
type logFlags struct {
	level, format string
}

func (l *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.level, "log-level", "info", "the least `LEVEL` that is logged: debug, info, warn or error")
	cmd.Flags().StringVar(&l.format, "log-format", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (l *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	o := &slog.HandlerOptions{}
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(l.level)); err != nil {
		return nil, usagef("unknown log level %q: use debug, info, warn or error", l.level)
	}
	o.Level = lv
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, usagef("unknown log format %q: use text or json", l.format)
}

func newServe() *cobra.Command {
	var file string
	var demo, takeover bool
	var wait time.Duration
	var lf logFlags
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the daemon in the foreground",
		Long: `Serve what a configuration file says until SIGTERM or SIGINT. Then sessions are closed and
disks flushed, within 5 s; a second signal ends it at once. SIGHUP reads the file again.

It is ready when it logs "ready" (and tells systemd, for units of Type=notify).

With --takeover it takes the place of the vtgt that runs: disks with their locks, sockets,
iSCSI sessions and the virtual machines at vhost-user exports, which notice nothing but a
short pause. It serves what that one serves; a change of the file comes into force by
SIGHUP, afterwards. Where it fails, the vtgt that runs goes on.`,
		Example: `  vtgt serve --config /etc/vtgt/vtgt.yaml
  vtgt serve --config vtgt.yaml --log-level debug --log-format json
  vtgt serve --config /etc/vtgt/vtgt.yaml --takeover   # upgrade: in the place of the one that runs
  vtgt serve --demo        # the same as vtgt run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := lf.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if demo {
				if takeover {
					return usagef("--takeover is for a vtgt that was started with --config")
				}
				if file != "" {
					return usagef("--demo makes its own configuration: leave --config out")
				}
				return runDemo(cmd, log, demoFlags{dir: ".vtgt", size: "1GiB", port: 3260})
			}
			if file == "" {
				return usagef("no configuration is named: add --config FILE (vtgt run tries vtgt out without one)")
			}
			text, err := config.ReadFile(file)
			if err != nil {
				return err
			}
			var legacy *daemon.Legacy
			if takeover {
				if legacy, err = takeOver(file, text); err != nil {
					return err
				}
				if !bytes.Equal(legacy.Text(), text) {
					log.Warn("what is in force is not what the file says: reload (SIGHUP) to apply that", "file", file)
				}
				text = legacy.Text()
			}
			p, err := startProcess(file, text, log, wait, legacy)
			legacy.Close()
			if err != nil {
				return err
			}
			p.ready()
			return p.wait()
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the configuration `FILE`")
	cmd.Flags().BoolVar(&demo, "demo", false, "serve a 1 GiB disk under ./.vtgt, without a configuration")
	cmd.Flags().BoolVar(&takeover, "takeover", false, "take the place of the vtgt that runs with this configuration")
	cmd.Flags().DurationVar(&wait, "lock-wait", 5*time.Second, "how long to wait for files that a vtgt which is about to end still holds")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	lf.add(cmd)
	return cmd
}

// process is the daemon with its API and signals.
type process struct {
	file    string
	log     *slog.Logger
	d       *daemon.Daemon
	srv     *api.Server
	cfg     *config.Config
	signals chan os.Signal
	// take serves those who take this process's place; taken hears their process id.
	take  *daemon.Takeovers
	taken chan int
	// parking keeps virtual machines' connections over a crash.
	parking *daemon.Parking
}

// takeOver asks the vtgt that serves file for all it has.
func takeOver(file string, text []byte) (*daemon.Legacy, error) {
	cfg, err := config.Parse(file, text)
	if err != nil {
		return nil, err
	}
	return daemon.TakeOver(cfg.State, absolute(file))
}

// startProcess starts everything. When it fails nothing is left.
// legacy, where it is not nil, is what another process hands over.
func startProcess(file string, text []byte, log *slog.Logger, wait time.Duration, legacy *daemon.Legacy) (*process, error) {
	cfg, err := config.Parse(file, text)
	if err != nil {
		return nil, err
	}
	// From here on a signal must not leave files behind.
	file = absolute(file)
	p := &process{file: file, log: log, cfg: cfg, signals: make(chan os.Signal, 4), taken: make(chan int, 1)}
	signal.Notify(p.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	log.Info("vtgt starts", "version", versionText(), "config", file, "pid", os.Getpid())
	// What systemd listens to already (vtgt.socket).
	in := inheritedSockets(log)
	defer in.close()
	p.parking = in.parking()
	// The socket first: a second daemon ends here, before it touches a disk.
	var ln net.Listener
	if legacy != nil {
		ln, err = inheritAPI(legacy, cfg.API.Socket)
	} else if ln = in.api(cfg.API.Socket, vhostSockets(cfg)); ln == nil {
		ln, err = api.Listen(cfg.API.Socket, fs.FileMode(cfg.API.Mode), cfg.API.Group)
	}
	if err != nil {
		p.parking.Close()
		signal.Stop(p.signals)
		return nil, err
	}
	if wait <= 0 {
		wait = -1 // 0 stands for the default
	}
	p.d, err = daemon.New(file, text, daemon.Options{Log: log, LockWait: wait, Inherited: in.rest(), Legacy: legacy, Parking: p.parking})
	if err != nil {
		p.parking.Close()
		closeAPI(ln, legacy != nil)
		signal.Stop(p.signals)
		return nil, err
	}
	p.srv = api.Serve(ln, p.d, api.ServerConfig{Version: versionText(), Log: log})
	p.serveTakeovers(ln)
	return p, nil
}

// vhostSockets are the sockets of exports to virtual machines.
func vhostSockets(c *config.Config) (out []string) {
	for i := range c.Targets {
		if x := c.Targets[i].VHost; x != nil {
			out = append(out, x.Socket)
		}
		if x := c.Targets[i].VIO; x != nil {
			out = append(out, x.Socket)
		}
	}
	return out
}

func (p *process) ready() {
	s := p.d.Status()
	p.log.Info("ready", "portals", s.Portals, "disks", s.Disks, "targets", s.Targets, "api", p.cfg.API.Socket)
	p.notifyReady("")
	p.watchdog()
}

func (p *process) notifyReady(more string) {
	s := p.d.Status()
	p.notify(fmt.Sprintf("%s\nSTATUS=serving %s at %s%s", sd.SdNotifyReady, number(s.Disks, "disk"), number(s.Targets, "target"), strings.ReplaceAll(more, "\n", " ")))
}

// watchdog tells systemd, where it wants to hear it (WatchdogSec=), that all loops
// go round.
func (p *process) watchdog() {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	go func() {
		t := time.NewTicker(max(every/3, 10*time.Millisecond))
		defer t.Stop()
		for range t.C {
			p.d.Alive() // returns when every loop has answered
			p.notify(sd.SdNotifyWatchdog)
		}
	}()
}

// notify tells systemd, where it asked to be told.
func (p *process) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		p.log.Warn("systemd cannot be told", "err", err)
	}
}

// wait serves until a signal, then drains.
func (p *process) wait() error {
	for stop := false; !stop; {
		select {
		case s := <-p.signals:
			if s == syscall.SIGHUP {
				p.reload()
				continue
			}
			p.log.Info("stopping", "signal", s.String())
			stop = true
		case pid := <-p.taken:
			// What is left here is not ours any more: nothing is closed.
			p.notify(fmt.Sprintf("MAINPID=%d", pid))
			p.log.Info("taken over", "by", pid)
			return nil
		}
	}
	p.notify(sd.SdNotifyStopping)
	done := make(chan error, 1)
	go func() { done <- p.close() }()
	limit := time.NewTimer(daemon.CloseTime + 2*time.Second)
	defer limit.Stop()
	for {
		select {
		case err := <-done:
			signal.Stop(p.signals)
			if err != nil {
				return err
			}
			p.log.Info("stopped")
			return nil
		case s := <-p.signals:
			if s == syscall.SIGHUP {
				continue
			}
			return errors.New("ended at once by a second signal: what was not flushed yet is in the host's page cache")
		case <-limit.C:
			return errors.New("ended although not everything was released in time; look at the log and at the devices below the disks")
		}
	}
}

func (p *process) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if p.take != nil {
		p.take.Close()
	}
	_ = p.srv.Close(ctx) // clients that do not end in time are cut off
	err := p.d.Close()
	p.parking.Close()
	return err
}

// reload applies the file that serve was given.
func (p *process) reload() {
	p.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d\nSTATUS=reading %s", sd.SdNotifyReloading, sys.MonotonicMicroseconds(), p.file))
	text, err := config.ReadFile(p.file)
	var r *daemon.Result
	if err == nil {
		r, err = p.d.Apply(p.file, text, daemon.ApplyOptions{})
	}
	if err != nil {
		for _, e := range daemon.AsErrors(err) {
			p.log.Error("the configuration was not applied", "object", e.Object, "err", e.Message, "hint", e.Hint)
		}
	} else {
		for _, w := range r.Warnings {
			p.log.Warn(w)
		}
	}
	status := ""
	if err != nil {
		status = "; the file was not applied: " + daemon.AsErrors(err)[0].Error()
	}
	p.notifyReady(status)
}
