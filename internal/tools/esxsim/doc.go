// Command esxsim is a vCenter server with ESXi hosts to try vtgt attach vsphere on: the
// simulator of attach/vsphere/vspheretest. Its hosts really log in to vtgt; there is
// nothing else in them. It runs until it is interrupted.
package main
