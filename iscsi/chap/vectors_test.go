package chap

// vectors are by name of the hash as openssl has it.
var vectors = map[string]string{
	"md5":      "5338196920e9d2ac1a92753cda6d12e5",
	"sha1":     "58ef568dc37d719654403934b27a1132b8e14c4d",
	"sha256":   "1cb34e29c66ceb67bdde647259b4332787804712e414bad26fc05fa957b6ac9e",
	"sha3-256": "a937b599dd81756b82408e5e330125d9ebdcdff35f10a3373c64d8207ca16837",
}
