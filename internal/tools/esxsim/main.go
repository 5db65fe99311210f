package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/vtgt/vtgt/attach/vsphere/vspheretest"
)

func main() {
	var c vspheretest.Config
	flag.IntVar(&c.Hosts, "hosts", 3, "hosts of the cluster; 0: a single ESXi host without vCenter")
	flag.IntVar(&c.VMs, "vms", 1, "virtual machines")
	flag.StringVar(&c.Listen, "listen", "127.0.0.1:8989", "address to listen on")
	flag.Parse()
	lab, err := vspheretest.New(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "esxsim:", err)
		os.Exit(1)
	}
	fmt.Printf("export VTGT_VSPHERE_URL=%s VTGT_VSPHERE_USER=%s VTGT_VSPHERE_PASSWORD=%s\n", lab.URL, vspheretest.User, vspheretest.Password)
	fmt.Printf("# cluster %q, hosts %q, virtual machines %q\n# --thumbprint %s\n# or --cacert %s\n", lab.Cluster, lab.HostNames, lab.VMs, lab.Thumbprint, lab.CA)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	lab.Close()
}
