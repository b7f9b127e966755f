package main

import "encoding/binary"

// WebSocket opcodes (RFC 6455, section 5.2).
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// maskKey is constant: servers must unmask whatever key they are given, and a fixed one costs the
// generator nothing to draw. It is not zero, so no server can skip the work.
var maskKey = [4]byte{0x5A, 0xC3, 0x71, 0x0F}

// appendFrame appends one final, masked client frame to dst.
func appendFrame(dst []byte, opcode byte, payload []byte) []byte {
	dst = append(dst, 0x80|opcode)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, 0x80|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, maskKey[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	body := dst[start:]
	for i := range body {
		body[i] ^= maskKey[i&3]
	}
	return dst
}

// nextFrame splits the first whole server frame off data. ok is false when data holds no whole
// frame yet. Servers must not mask (RFC 6455, section 5.1), so the payload is used where it lies.
func nextFrame(data []byte) (opcode byte, final bool, payload, rest []byte, ok bool) {
	if len(data) < 2 {
		return 0, false, nil, data, false
	}
	header, length := 2, int(data[1]&0x7F)
	switch length {
	case 126:
		header = 4
		if len(data) < header {
			return 0, false, nil, data, false
		}
		length = int(binary.BigEndian.Uint16(data[2:]))
	case 127:
		header = 10
		if len(data) < header {
			return 0, false, nil, data, false
		}
		length = int(binary.BigEndian.Uint64(data[2:]))
	}
	if len(data) < header+length {
		return 0, false, nil, data, false
	}
	end := header + length
	return data[0] & 0x0F, data[0]&0x80 != 0, data[header:end], data[end:], true
}
