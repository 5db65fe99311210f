package login

import (
	"strings"
	"testing"

	"github.com/vtgt/vtgt/iscsi/pdu"
)

// request is one Login Request of a known initiator.
type request struct {
	csg, nsg pdu.Stage
	text     string // keys separated by spaces
	answer   string // keys of the answer that matter, the same way
}

// The keys that initiators are known to send with their defaults, in their stages
// and order.
var clients = []struct {
	name     string
	requests []request
	check    func(p *Params) bool
}{
	{"open-iscsi", []request{
		{sec, op, "InitiatorName=iqn.1994-05.com.redhat:5fd1b9cd8e InitiatorAlias=node1 TargetName=" + disk + " SessionType=Normal AuthMethod=None",
			"TargetPortalGroupTag=3 AuthMethod=None"},
		{op, ffp, "HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No ErrorRecoveryLevel=0 " +
			"InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 FirstBurstLength=262144 MaxOutstandingR2T=1 MaxConnections=1 " +
			"DataPDUInOrder=Yes DataSequenceInOrder=Yes MaxRecvDataSegmentLength=262144",
			"HeaderDigest=None DataDigest=None DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No ErrorRecoveryLevel=0 " +
				"InitialR2T=No ImmediateData=Yes MaxBurstLength=1048576 FirstBurstLength=262144 MaxOutstandingR2T=1 MaxConnections=1 " +
				"DataPDUInOrder=Yes DataSequenceInOrder=Yes MaxRecvDataSegmentLength=262144"},
	}, func(p *Params) bool {
		return !p.InitialR2T && p.ImmediateData && p.FirstBurstLength == 262144 && p.MaxBurstLength == 1<<20 &&
			p.MaxXmitDataSegmentLength == 262144 && p.InitiatorAlias == "node1"
	}},
	{"open-iscsi with CHAP configured and digests", []request{
		{sec, op, "InitiatorName=iqn.1994-05.com.redhat:5fd1b9cd8e InitiatorAlias=node1 TargetName=" + disk + " SessionType=Normal AuthMethod=CHAP,None",
			"AuthMethod=None"},
		{op, ffp, "HeaderDigest=CRC32C,None DataDigest=CRC32C DefaultTime2Wait=2 DefaultTime2Retain=0 IFMarker=No OFMarker=No ErrorRecoveryLevel=0 " +
			"InitialR2T=No ImmediateData=Yes MaxBurstLength=16776192 FirstBurstLength=262144 MaxOutstandingR2T=1 MaxConnections=1 " +
			"DataPDUInOrder=Yes DataSequenceInOrder=Yes MaxRecvDataSegmentLength=262144",
			"HeaderDigest=CRC32C DataDigest=CRC32C"},
	}, func(p *Params) bool { return p.HeaderDigest && p.DataDigest && p.AuthMethod == "None" }},
	{"open-iscsi, discovery", []request{
		{sec, op, "InitiatorName=iqn.1994-05.com.redhat:5fd1b9cd8e InitiatorAlias=node1 SessionType=Discovery AuthMethod=None", "TargetPortalGroupTag=7 AuthMethod=None"},
		{op, ffp, "HeaderDigest=None DataDigest=None DefaultTime2Wait=0 DefaultTime2Retain=0 IFMarker=No OFMarker=No ErrorRecoveryLevel=0 MaxRecvDataSegmentLength=32768",
			"DefaultTime2Wait=2"},
	}, func(p *Params) bool { return p.Discovery && p.MaxXmitDataSegmentLength == 32768 }},
	{"libiscsi", []request{
		{sec, op, "InitiatorName=iqn.2008-11.org.linux-kvm:vm_1 InitiatorAlias=vm SessionType=Normal TargetName=" + disk + " AuthMethod=None", "AuthMethod=None"},
		{op, ffp, "HeaderDigest=None,CRC32C DataDigest=None InitialR2T=No ImmediateData=Yes MaxBurstLength=262144 FirstBurstLength=262144 " +
			"DefaultTime2Wait=2 DefaultTime2Retain=0 MaxOutstandingR2T=1 ErrorRecoveryLevel=0 IFMarker=No OFMarker=No MaxConnections=1 " +
			"MaxRecvDataSegmentLength=262144 DataPDUInOrder=Yes DataSequenceInOrder=Yes",
			"HeaderDigest=None FirstBurstLength=262144 MaxBurstLength=262144 IFMarker=No"},
	}, func(p *Params) bool {
		return !p.HeaderDigest && !p.InitialR2T && p.InitiatorName == "iqn.2008-11.org.linux-kvm:vm_1"
	}},
	{"libiscsi, discovery", []request{
		{sec, op, "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls InitiatorAlias=ls SessionType=Discovery AuthMethod=None", "AuthMethod=None"},
		{op, ffp, "HeaderDigest=None,CRC32C DataDigest=None InitialR2T=No ImmediateData=Yes MaxBurstLength=262144 FirstBurstLength=262144 " +
			"DefaultTime2Wait=2 DefaultTime2Retain=0 MaxOutstandingR2T=1 ErrorRecoveryLevel=0 IFMarker=No OFMarker=No MaxConnections=1 " +
			"MaxRecvDataSegmentLength=262144 DataPDUInOrder=Yes DataSequenceInOrder=Yes",
			"InitialR2T=Irrelevant MaxBurstLength=Irrelevant MaxConnections=Irrelevant ErrorRecoveryLevel=0"},
	}, func(p *Params) bool { return p.Discovery }},
	{"Windows", []request{
		{sec, op, "InitiatorName=iqn.1991-05.com.microsoft:WIN-1.example.org SessionType=Normal TargetName=" + disk + " AuthMethod=None", "AuthMethod=None"},
		{op, ffp, "HeaderDigest=None DataDigest=None MaxConnections=32 InitialR2T=No ImmediateData=Yes MaxRecvDataSegmentLength=65536 " +
			"MaxBurstLength=262144 FirstBurstLength=65536 DefaultTime2Wait=0 DefaultTime2Retain=60 MaxOutstandingR2T=16 " +
			"DataPDUInOrder=Yes DataSequenceInOrder=Yes ErrorRecoveryLevel=2",
			"MaxConnections=1 DefaultTime2Wait=2 DefaultTime2Retain=0 MaxOutstandingR2T=16 ErrorRecoveryLevel=0"},
	}, func(p *Params) bool {
		return p.InitiatorName == "iqn.1991-05.com.microsoft:win-1.example.org" && p.MaxOutstandingR2T == 16 && p.ErrorRecoveryLevel == 0
	}},
	{"Windows, discovery", []request{
		{sec, op, "InitiatorName=iqn.1991-05.com.microsoft:win-1.example.org SessionType=Discovery AuthMethod=None", "AuthMethod=None"},
		{op, ffp, "HeaderDigest=None DataDigest=None MaxRecvDataSegmentLength=65536 DefaultTime2Wait=0 DefaultTime2Retain=60 ErrorRecoveryLevel=2", "ErrorRecoveryLevel=0"},
	}, func(p *Params) bool { return p.Discovery }},
	{"ESXi", []request{
		{sec, op, "InitiatorName=iqn.1998-01.com.vmware:esx1-4a5b6c7d TargetName=" + disk + " SessionType=Normal AuthMethod=CHAP,None", "AuthMethod=None"},
		{op, ffp, "HeaderDigest=None DataDigest=None DefaultTime2Wait=0 DefaultTime2Retain=0 IFMarker=No OFMarker=No ErrorRecoveryLevel=0 " +
			"InitialR2T=No ImmediateData=Yes MaxBurstLength=262144 FirstBurstLength=262144 MaxOutstandingR2T=1 MaxConnections=1 " +
			"DataPDUInOrder=Yes DataSequenceInOrder=Yes MaxRecvDataSegmentLength=131072 X#NodeArchitecture=VMware TaskReporting=FastAbort,RFC3720",
			"TaskReporting=RFC3720 FirstBurstLength=262144"},
	}, func(p *Params) bool { return p.MaxXmitDataSegmentLength == 131072 }},
	{"iPXE", []request{
		{sec, op, "InitiatorName=iqn.2010-04.org.ipxe:00000000-0000 TargetName=" + disk + " SessionType=Normal AuthMethod=None", "AuthMethod=None"},
		{op, ffp, "HeaderDigest=None DataDigest=None MaxConnections=1 InitialR2T=Yes ImmediateData=No MaxRecvDataSegmentLength=8192 MaxBurstLength=262144 " +
			"FirstBurstLength=65536 DefaultTime2Wait=0 DefaultTime2Retain=0 MaxOutstandingR2T=1 DataPDUInOrder=Yes DataSequenceInOrder=Yes ErrorRecoveryLevel=0",
			"InitialR2T=Yes ImmediateData=No FirstBurstLength=Irrelevant"},
	}, func(p *Params) bool { return p.InitialR2T && !p.ImmediateData }},
	{"FreeBSD", []request{
		{sec, op, "AuthMethod=None InitiatorName=iqn.1994-09.org.freebsd:host1 TargetName=" + disk + " SessionType=Normal", "AuthMethod=None"},
		{op, ffp, "HeaderDigest=CRC32C DataDigest=CRC32C ImmediateData=Yes MaxBurstLength=16776192 FirstBurstLength=262144 InitialR2T=No " +
			"MaxOutstandingR2T=1 MaxRecvDataSegmentLength=131072 DefaultTime2Wait=0 DefaultTime2Retain=0 ErrorRecoveryLevel=0 iSCSIProtocolLevel=2 DataPDUInOrder=Yes DataSequenceInOrder=Yes",
			"HeaderDigest=CRC32C iSCSIProtocolLevel=1"},
	}, func(p *Params) bool { return p.HeaderDigest && p.DataDigest && p.ProtocolLevel == 1 }},
}

func TestClients(t *testing.T) {
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			k := newTalk(t, testConfig())
			for i, r := range c.requests {
				h, answer, st := k.send(r.csg, r.nsg, strings.Fields(r.text)...)
				want := More
				if r.nsg == ffp {
					want = Done
				}
				if st != want || !h.Transit() {
					t.Fatalf("request %d: %v %v %v", i, st, h.LoginStatus(), k.m.Err())
				}
				have := " " + strings.Join(answer, " ") + " "
				for _, w := range strings.Fields(r.answer) {
					if !strings.Contains(have, " "+w+" ") {
						t.Errorf("request %d: no %s in%s", i, w, have)
					}
				}
				if strings.Contains(have, "Reject") {
					t.Errorf("request %d:%s", i, have)
				}
			}
			if p := k.m.Params(); !c.check(&p) {
				t.Errorf("result %+v", p)
			}
		})
	}
}
