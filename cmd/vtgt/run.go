package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
)

// demoFlags are the flags of vtgt run.
type demoFlags struct {
	dir   string
	size  string
	port  int
	vhost bool
}

// demoPorts is how many ports are tried.
const demoPorts = 100

func newRun() *cobra.Command {
	var f demoFlags
	var lf logFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Try vtgt out: serve a disk under ./.vtgt",
		Long: `Serve one sparse disk on 127.0.0.1, without a configuration and without root, and show how
to use it. Everything is kept in one folder, which may be removed when vtgt does not run.

With --vhost the disk is for one virtual machine under QEMU: a socket in that folder is a
virtio-scsi device (vhost-user-scsi).`,
		Example: `  vtgt run
  vtgt run --vhost
  vtgt run --dir /tmp/try --size 20GiB`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := lf.logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return runDemo(cmd, log, f)
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", ".vtgt", "the `FOLDER` for the disk, the state and the socket")
	cmd.Flags().StringVar(&f.size, "size", "1GiB", "the disk's size when it is made")
	cmd.Flags().IntVar(&f.port, "port", 3260, "the first `PORT` to try; the next free one is taken")
	cmd.Flags().BoolVar(&f.vhost, "vhost", false, "serve it to a virtual machine by vhost-user-scsi instead of by iSCSI")
	lf.add(cmd)
	return cmd
}

// demo is what the texts below are made of.
type demo struct {
	Dir, Socket, Portal, Host, Port, IQN, Disk, Size, Program string
	// VHost is the socket for a virtual machine, QEMU what connects to it; empty:
	// iSCSI.
	VHost, QEMU string
}

var demoConfig = template.Must(template.New("config").Parse(`# Made by "vtgt run", which writes it anew each time: copy it to change it.
version: 1
disks:
  - name: demo
    store: "file:{{.Disk}}"
    size: {{.Size}}
    create: true
targets:
  - name: demo
    luns: [{lun: 0, disk: demo}]
{{- if .VHost}}
    vhost: {socket: "{{.VHost}}"}
{{- else}}
    iscsi: {iqn: "{{.IQN}}"}
iscsi: {portals: ["{{.Portal}}"]}
{{- end}}
api: {socket: "{{.Socket}}"}
state: "{{.Dir}}/state"
`))

var vhostText = template.Must(template.New("vhost").Parse(`
vtgt serves {{.Disk}} ({{.Size}}) to a virtual machine at {{.VHost}}

QEMU:
  qemu-system-x86_64 -accel kvm -accel tcg \
{{.QEMU}} …

Look at it:
  export VTGT_SOCKET={{.Socket}}
  {{.Program}} get exports

One virtual machine at a time. Ctrl-C ends it; the disk stays.
`))

var demoText = template.Must(template.New("text").Parse(`
vtgt serves {{.Disk}} ({{.Size}}) at {{.Portal}} as
  {{.IQN}}, LUN 0

Look at it:
  export VTGT_SOCKET={{.Socket}}
  {{.Program}} get sessions

qemu-img (package qemu-block-extra on Debian):
  qemu-img info iscsi://{{.Portal}}/{{.IQN}}/0
  qemu-img convert -n -O raw SOURCE.img iscsi://{{.Portal}}/{{.IQN}}/0

QEMU:
  qemu-system-x86_64 -accel kvm -accel tcg -m 1G -device virtio-scsi-pci \
    -drive if=none,id=d0,format=raw,cache=none,file=iscsi://{{.Portal}}/{{.IQN}}/0 \
    -device scsi-hd,drive=d0

libvirt, in the domain's <devices>:
  <controller type='scsi' model='virtio-scsi'/>
  <disk type='network' device='disk'>
    <driver name='qemu' type='raw' cache='none'/>
    <source protocol='iscsi' name='{{.IQN}}/0'>
      <host name='{{.Host}}' port='{{.Port}}'/>
    </source>
    <target dev='sda' bus='scsi'/>
  </disk>

open-iscsi, as root:
  iscsiadm -m discovery -t sendtargets -p {{.Portal}}
  iscsiadm -m node -T {{.IQN}} -p {{.Portal}} --login
  iscsiadm -m node -T {{.IQN}} -p {{.Portal}} --logout

One initiator at a time: the disk is not shared. Ctrl-C ends it; the disk stays.
`))

func runDemo(cmd *cobra.Command, log *slog.Logger, f demoFlags) error {
	size, err := config.ParseSize(f.size)
	if err != nil {
		return usagef("--size: %w", err)
	}
	if size <= 0 || size%512 != 0 {
		return usagef("--size: %s is not a positive multiple of 512 bytes; write a size such as 1GiB", f.size)
	}
	if f.port < 1 || f.port > 65535 {
		return usagef("--port: %d is not a port; write a number from 1 to 65535, such as 3260", f.port)
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return err
	}
	if strings.ContainsAny(dir, "\"\\\n") {
		return fmt.Errorf("--dir: %q has a quote, a backslash or a line feed in its name; name another folder with --dir", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%w; name a folder that you may write with --dir", err)
	}
	m := demo{
		Dir: dir, Socket: shortPath(dir, "vtgt.sock"), Host: "127.0.0.1", IQN: "iqn.2026-11.org.vtgt:demo",
		Disk: filepath.Join(dir, "disk.img"), Size: size.String(), Program: "vtgt",
	}
	// The disk is made once; what it has is its size afterwards.
	if fi, err := os.Stat(m.Disk); err == nil && fi.Mode().IsRegular() && fi.Size() >= 512 && fi.Size()%512 == 0 {
		m.Size = config.Size(fi.Size()).String()
	}
	if exe, err := os.Executable(); err == nil {
		m.Program = exe
	}
	if f.vhost {
		m.VHost = shortPath(dir, "vm.sock")
		m.QEMU = qemuVHost("    ", "vtgt", m.VHost, "1G")
	}
	file := filepath.Join(dir, "vtgt.yaml")
	p, err := startDemo(file, &m, log, f.port)
	if err != nil {
		return err
	}
	text := demoText
	if m.VHost != "" {
		text = vhostText
	}
	if err := text.Execute(cmd.OutOrStdout(), &m); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		log.Warn("the instructions cannot be shown", "err", err)
	}
	p.ready()
	return p.wait()
}

// startDemo starts on the first port that is free.
func startDemo(file string, m *demo, log *slog.Logger, port int) (*process, error) {
	for n := port; n < port+demoPorts && n <= 65535; n++ {
		if m.VHost != "" {
			return startWith(file, m, log)
		}
		m.Port = fmt.Sprint(n)
		m.Portal = net.JoinHostPort(m.Host, m.Port)
		ln, err := net.Listen("tcp", m.Portal)
		if err != nil {
			continue
		}
		ln.Close()
		p, err := startWith(file, m, log)
		var e *daemon.Error
		if errors.As(err, &e) && e.Code == daemon.CodeInUse && strings.Contains(e.Object, "portal") {
			continue // taken in the meantime
		}
		return p, err
	}
	return nil, fmt.Errorf("no port from %d on is free on %s; name another with --port", port, m.Host)
}

// startWith starts with what m says.
func startWith(file string, m *demo, log *slog.Logger) (*process, error) {
	var b strings.Builder
	if err := demoConfig.Execute(&b, m); err != nil {
		return nil, err
	}
	p, err := startProcess(file, []byte(b.String()), log, 0, nil)
	if err != nil {
		return nil, err
	}
	// Written once it serves: a second run leaves the first one's file.
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		_ = p.close()
		return nil, err
	}
	return p, nil
}

// shortPath is the socket called name in dir, or, where that is too long for a socket's
// address, in the folder for temporary files.
func shortPath(dir, name string) string {
	if s := filepath.Join(dir, name); len(s) <= 90 {
		return s
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, dir)
	return filepath.Join("/tmp", fmt.Sprintf("vtgt-%d-%x", os.Getuid(), h.Sum64()), name)
}
