package main

import (
	"bytes"
	"errors"
	"strconv"
)

type answer struct {
	status   int
	complete bool
	closes   bool
}

var (
	headEnd   = []byte("\r\n\r\n")
	lineEnd   = []byte("\r\n")
	length    = []byte("content-length")
	encoding  = []byte("transfer-encoding")
	conn      = []byte("connection")
	closing   = []byte("close")
	errAnswer = errors.New("not an HTTP/1.1 answer with a Content-Length")
)

// parse looks for one answer (RFC 9112) at the beginning of what was received. Only bodies with a Content-Length are understood: an
// answer in chunks would hide from the figures that the server did not know its length.
func parse(received []byte) (answer, error) {
	end := bytes.Index(received, headEnd)
	if end < 0 {
		return answer{}, nil
	}
	line, rest, _ := bytes.Cut(received[:end], lineEnd)
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return answer{}, errAnswer
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil || status < 200 || status > 599 {
		return answer{}, errAnswer
	}
	found := answer{status: status}
	body := -1
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, lineEnd)
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, length):
			if body, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || body < 0 {
				return answer{}, errAnswer
			}
		case bytes.EqualFold(name, encoding):
			return answer{}, errAnswer
		case bytes.EqualFold(name, conn):
			found.closes = bytes.EqualFold(bytes.TrimSpace(value), closing)
		}
	}
	if body < 0 {
		if status != 204 && status != 304 {
			return answer{}, errAnswer
		}
		body = 0
	}
	found.complete = len(received) >= end+len(headEnd)+body
	return found, nil
}
