// Package srptest drives carriers of package srp (T10 SRP r16a): an in-memory SRP
// initiator with hostile modes, and the suite, Run, that every carrier passes.
//
// The suite speaks to a carrier by Link, which any ring can offer. A Link that is also
// a Wire takes whole information units, and gets the hostile ones too. Initiator makes
// a Wire of anything that carries SRP information units; Memory is what its
// descriptors point into.
package srptest
