package scsi

import (
	"slices"
	"testing"
)

func TestUAQueue(t *testing.T) {
	var some []ASC // no standard's
	for a := range ASC(maxUA + 1) {
		some = append(some, a+1)
	}
	for _, c := range []struct {
		name     string
		in, want []ASC
	}{
		{"in order", []ASC{ASCModeParametersChanged, ASCCapacityDataHasChanged}, []ASC{ASCModeParametersChanged, ASCCapacityDataHasChanged}},
		{"each once", []ASC{ASCReportedLUNsDataHasChanged, ASCReportedLUNsDataHasChanged}, []ASC{ASCReportedLUNsDataHasChanged}},
		{"a reset comes first and takes along what it implies",
			[]ASC{ASCModeParametersChanged, ASCCapacityDataHasChanged, ASCReservationsReleased, ASCBusDeviceReset},
			[]ASC{ASCBusDeviceReset, ASCCapacityDataHasChanged}},
		{"the higher reset stays", []ASC{ASCPowerOnOrReset, ASCBusDeviceReset, ASCNexusLoss}, []ASC{ASCPowerOnOrReset}},
		{"the higher reset comes", []ASC{ASCNexusLoss, ASCBusReset}, []ASC{ASCBusReset}},
		{"after a reset", []ASC{ASCPowerOnOrReset, ASCModeParametersChanged}, []ASC{ASCPowerOnOrReset, ASCModeParametersChanged}},
		{"bounded", some[:maxUA+1], some[:maxUA]},
		{"a reset finds room", append(slices.Clone(some[:maxUA]), ASCBusReset), append([]ASC{ASCBusReset}, some[:maxUA-1]...)},
	} {
		var q uaQueue
		for _, a := range c.in {
			q.add(a)
		}
		var got []ASC
		for {
			a, ok := q.take()
			if !ok {
				break
			}
			got = append(got, a)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	var q uaQueue
	q.add(1)
	q.add(2)
	q.remove(1)
	q.remove(9)
	if a, ok := q.take(); !ok || a != 2 {
		t.Errorf("after remove: %v %v", a, ok)
	}
}
