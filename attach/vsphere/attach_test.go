package vsphere

import (
	"strings"
	"testing"

	"github.com/vtgt/vtgt/api"
)

func TestAttachDetach(t *testing.T) {
	r := newRig(t, rigOptions{hosts: 0})
	before := r.snapshot()
	w := Where{}
	o := r.options()

	o.DryRun = true
	n := r.mustAttach(w, o)
	plan := r.said()
	if n != 5 || len(plan) != 5 {
		t.Errorf("the plan is\n%s", strings.Join(plan, "\n"))
	}
	r.same(before)
	if c := r.lab.Changes(); len(c) != 0 {
		t.Errorf("a dry run has changed something: %v", c)
	}

	o.DryRun = false
	if n := r.mustAttach(w, o); n != 5 {
		t.Errorf("%d changes", n)
	}
	said := r.said()
	t.Log(strings.Join(said, "\n"))
	for i, l := range said {
		want := strings.Replace(plan[i], "would ", "", 1)
		if i != 2 && l != want { // 2 names the adapter, which there was not before
			t.Errorf("line %d is %q, planned was %q", i, l, want)
		}
	}
	if s := r.sessions(); len(s) != 1 {
		t.Errorf("sessions: %v", s)
	}
	as, _ := r.c.Attachments(r.ctx)
	if len(as) != 1 || as[0].State != api.Attached || as[0].Options["name"] != r.lab.HostNames[0] {
		t.Errorf("%+v", as)
	}
	if text := r.d.Config().Text; !strings.Contains(text, `initiators: ["iqn.1998-01.com.vmware:`) && !strings.Contains(text, "initiators: [iqn.1998-01.com.vmware:") {
		t.Errorf("the host is not in the list:\n%s", text)
	}

	// Again: nothing to do.
	r.lab.Changes()
	if n := r.mustAttach(w, r.options()); n != 0 {
		t.Errorf("the second attach did %d things: %v", n, r.said())
	}
	if c := r.lab.Changes(); len(c) != 0 {
		t.Errorf("the second attach changed something: %v", c)
	}

	if n := r.mustDetach(w); n != 1 {
		t.Errorf("%d detached", n)
	}
	r.same(before)
	if n := r.mustDetach(w); n != 0 {
		t.Errorf("%d detached", n)
	}
}
