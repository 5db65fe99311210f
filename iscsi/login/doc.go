// Package login is the target's side of iSCSI login and text negotiation, without
// any I/O (RFC 7143 §6, §11.10-§11.13, chapter 13): a [Machine] takes Login
// Requests and gives Login Responses until the connection is in full feature phase
// or refused, and a [Text] does the same for Text Requests afterwards. It also
// knows iSCSI names ([NormalizeName], §4.2.7).
//
// Everything that comes in is hostile: text is bounded, wrong stages and repeated
// keys are found, and every refusal is a Login Response with the status that the
// standard gives for it.
package login
