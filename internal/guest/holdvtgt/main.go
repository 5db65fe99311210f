package main

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
)

func main() {
	if len(os.Args) != 4 || os.Args[1] != "serve" || os.Args[2] != "--config" {
		fmt.Fprintln(os.Stderr, "usage: holdvtgt serve --config FILE")
		os.Exit(2)
	}
	if err := serve(os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "holdvtgt:", err)
		os.Exit(1)
	}
}

// stores are the opened ones by what the configuration says of them ("file:/x").
type stores struct {
	mu sync.Mutex
	m  map[string]*backingtest.Fault
}

func (s *stores) open(spec string, o backing.Options) (backing.Store, error) {
	st, err := backing.Open(spec, o)
	if err != nil {
		return nil, err
	}
	f := backingtest.NewFault(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[spec] = f
	return f, nil
}

func (s *stores) find(spec string) *backingtest.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[spec]
}

func serve(file string) error {
	text, err := config.ReadFile(file)
	if err != nil {
		return err
	}
	cfg, err := config.Parse(file, text)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ln, err := api.Listen(cfg.API.Socket, fs.FileMode(cfg.API.Mode), cfg.API.Group)
	if err != nil {
		return err
	}
	ss := &stores{m: map[string]*backingtest.Fault{}}
	d, err := daemon.New(file, text, daemon.Options{Log: log, LockWait: -1, Open: ss.open})
	if err != nil {
		ln.Close()
		return err
	}
	srv := api.Serve(ln, d, api.ServerConfig{Version: "hold", Log: log})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	log.Info("ready")
	go ss.orders(cfg)
	<-stop
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = srv.Close(ctx)
	return d.Close()
}

// orders follows standard input to its end.
func (s *stores) orders(cfg *config.Config) {
	sc := bufio.NewScanner(os.Stdin)
	for sc.Scan() {
		verb, disk, _ := strings.Cut(sc.Text(), " ")
		k := cfg.Disk(disk)
		if k == nil || s.find(k.Store) == nil {
			fmt.Println(-1)
			continue
		}
		f := s.find(k.Store)
		switch verb {
		case "hold":
			f.Inject(backingtest.Rule{Hold: true, Deaf: true})
		case "keep":
			f.Inject(backingtest.Rule{Hold: true})
		case "release":
			f.Clear()
			f.Release(-1)
		}
		fmt.Println(f.Held())
	}
}
