package hep

// Split finds the first packet in buf, what has been read so far of a TCP or
// TLS connection: n is its length, 0 means that more must be read. A buffer of
// [MaxPacket] bytes is always enough.
//
// Only HEP3 says how long it is. HEP1 and HEP2 end where the datagram ends, so
// in a stream they can't be told from what follows: they are an [ErrVersion],
// like anything that isn't HEP; a total length below 6 is an [ErrLength]. After
// an error nothing in the connection can be found again: close it.
func Split(buf []byte) (n int, err error) {
	if len(buf) == 0 {
		return 0, nil
	}
	if buf[0] == 1 || buf[0] == 2 {
		return 0, &Error{Err: ErrVersion, Version: int(buf[0]), Got: int(buf[0])}
	}
	n, err = length3(buf)
	if err != nil || n > len(buf) {
		return 0, err
	}
	return n, nil
}
