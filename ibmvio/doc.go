// Package ibmvio is the server of IBM's virtual SCSI (PAPR+ §17.2.1; SRP of T10 SRP r16a
// over a command/response queue): the disks of a pSeries guest's ibmvscsi client.
//
// The hypervisor's part, CRQ entries and copies to and from the client's I/O bus
// addresses, is behind the interface Hypervisor; crq is the codec of what is in them.
package ibmvio
