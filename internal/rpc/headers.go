package rpc

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// mostHeaders bounds the header list of a call, as RFC 9113, 6.5.2 counts it, and
// so what a connection may have us keep of one.
const mostHeaders = 1 << 20

// headerSet is what a client sent before a call. It is shared by calls whose header
// blocks are the same and does not change once a call has it.
type headerSet struct {
	fields []hpack.HeaderField
	size   int

	path     string
	encoding string // grpc-encoding
	subtype  string // of the content type
	timeout  time.Duration
	length   int64 // content-length; -1 when there was none
	method   *method

	timed bool // there was a timeout
	// trailers says that the block has no pseudo-header at all, as one behind the
	// messages.
	trailers bool
	// large: the list is beyond mostHeaders and was cut. malformed: it is none of HTTP.
	large, malformed bool
	// refused answers the call before it began, with an HTTP status.
	refused    *status.Status
	httpStatus int
}

// value returns the first value under a name in lower case.
func (h *headerSet) value(name string) (string, bool) {
	for i := range h.fields {
		if h.fields[i].Name == name {
			return h.fields[i].Value, true
		}
	}
	return "", false
}

// metadata is what handlers may see of the headers.
func (h *headerSet) metadata() metadata.MD {
	md := make(metadata.MD, len(h.fields))
	for _, f := range h.fields {
		switch f.Name {
		case ":authority", "user-agent", "content-type":
		default:
			if reserved(f.Name) {
				continue
			}
		}
		v := f.Value
		if strings.HasSuffix(f.Name, "-bin") {
			v, _ = decodeBinary(v) // what is none was refused before
		}
		md[f.Name] = append(md[f.Name], v)
	}
	if host := md["host"]; host != nil { // of the two only one is shown
		if md[":authority"] == nil {
			md[":authority"] = host
		}
		delete(md, "host")
	}
	return md
}

// reserved says whether gRPC keeps a name of metadata for itself.
func reserved(name string) bool {
	switch name {
	case "content-type", "user-agent", "te", "grpc-message-type", "grpc-encoding", "grpc-message", "grpc-status", "grpc-timeout":
		return true
	}
	return strings.HasPrefix(name, ":")
}

func encodeBinary(v string) string { return base64.RawStdEncoding.EncodeToString([]byte(v)) }

// decodeBinary takes base64 with its padding or without.
func decodeBinary(v string) (string, error) {
	encoding := base64.RawStdEncoding
	if len(v)%4 == 0 {
		encoding = base64.StdEncoding
	}
	b, err := encoding.DecodeString(v)
	return string(b), err
}

// keptBlocks is how many header blocks a connection remembers.
const keptBlocks = 8

// decoder decodes the header blocks of one connection. A block made only of
// references of one byte to the tables says the same as the last time that it came,
// if nothing was put into the dynamic table since: it is not decoded again.
type decoder struct {
	hpack   *hpack.Decoder
	lookup  func(path string) *method
	scratch headerSet
	kept    [keptBlocks]struct {
		block string
		set   *headerSet
	}
	keptNext int
}

func newDecoder(lookup func(path string) *method) *decoder {
	d := &decoder{lookup: lookup}
	d.hpack = hpack.NewDecoder(4096, d.take)
	d.hpack.SetMaxStringLength(mostHeaders)
	return d
}

// take gets one field from hpack's decoder.
func (d *decoder) take(f hpack.HeaderField) {
	h := &d.scratch
	h.size += len(f.Name) + len(f.Value) + 32
	if h.size > mostHeaders {
		h.large = true
		return
	}
	h.fields = append(h.fields, f)
}

// decode returns what a whole header block says. The set is the decoder's own, valid
// until the next block, unless kept is true.
func (d *decoder) decode(block []byte) (set *headerSet, kept bool, err error) {
	stable := len(block) > 0
	for _, b := range block {
		if b < 0x80 || b == 0xff {
			stable = false
			break
		}
	}
	if stable {
		for i := range d.kept {
			if k := &d.kept[i]; k.set != nil && k.block == string(block) {
				return k.set, true, nil
			}
		}
	} else {
		clear(d.kept[:])
	}
	fields := d.scratch.fields[:0]
	if cap(fields) > 256 {
		fields = nil
	}
	d.scratch = headerSet{fields: fields, length: -1}
	if _, err := d.hpack.Write(block); err != nil {
		return nil, false, fault(http2.ErrCodeCompression, "bad header block")
	}
	if err := d.hpack.Close(); err != nil {
		return nil, false, fault(http2.ErrCodeCompression, "a header block ends too early")
	}
	d.scratch.read()
	if h := &d.scratch; h.refused == nil && !h.malformed && !h.large && !h.trailers {
		h.method = d.lookup(h.path)
	}
	if !stable {
		return &d.scratch, false, nil
	}
	set = new(headerSet)
	set.copy(&d.scratch)
	k := &d.kept[d.keptNext%keptBlocks]
	d.keptNext++
	k.block, k.set = string(block), set
	return set, true, nil
}

// copy makes h a copy with a list of its own.
func (h *headerSet) copy(from *headerSet) {
	fields := append(h.fields[:0], from.fields...)
	*h = *from
	h.fields = fields
}

// read finds in the list of fields what a call consists of, and what is wrong with it.
func (h *headerSet) read() {
	if h.large {
		return
	}
	var pseudo pseudoFields
	kind, kinds, hosts := "", 0, 0
	var broken *status.Status
	for i := range h.fields {
		f := &h.fields[i]
		if strings.HasPrefix(f.Name, ":") {
			if !pseudo.take(f) {
				h.malformed = true
			}
			continue
		}
		pseudo.over = true
		if !validName(f.Name) || !httpguts.ValidHeaderFieldValue(f.Value) {
			h.malformed = true
		}
		switch f.Name {
		case "content-type":
			kind = f.Value
			if sub, ok := subtypeOf(f.Value); ok {
				h.subtype = sub
				kinds++
			}
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			h.malformed = true // RFC 9113, 8.2.2
		case "te":
			h.malformed = h.malformed || f.Value != "trailers"
		case "host":
			hosts++
		case "grpc-encoding":
			h.encoding = f.Value
		case "grpc-timeout":
			var err error
			if h.timeout, err = parseTimeout(f.Value); err != nil {
				broken = status.Newf(codes.Internal, "malformed grpc-timeout: %v", err)
			}
			h.timed = true
		case "content-length":
			n, err := strconv.ParseUint(f.Value, 10, 62)
			if err != nil {
				h.malformed = true
			}
			h.length = int64(n)
		default:
			if strings.HasSuffix(f.Name, "-bin") {
				if _, err := decodeBinary(f.Value); err != nil {
					broken = status.Newf(codes.Internal, "malformed binary metadata %q in header %q: %v", f.Value, f.Name, err)
				}
			}
		}
	}
	if pseudo.count == 0 {
		h.trailers = true
		return
	}
	h.path = pseudo.path
	h.malformed = h.malformed || !pseudo.complete()
	h.judge(&pseudo, kind, kinds > 0, hosts, broken)
}

// judge refuses what is HTTP but no call, in the order and words of grpc-go.
func (h *headerSet) judge(pseudo *pseudoFields, kind string, isGRPC bool, hosts int, broken *status.Status) {
	switch {
	case h.malformed:
	case hosts > 1:
		h.refuse(400, status.Newf(codes.Internal, "num values of :authority: %d, num values of host: %d, both must only have 1 value as per HTTP/2 spec", pseudo.authorities, hosts))
	case !isGRPC:
		h.refuse(http.StatusUnsupportedMediaType, status.Newf(codes.InvalidArgument, "invalid gRPC request content-type %q", kind))
	case broken != nil:
		h.refuse(400, broken)
	case pseudo.authorities+hosts == 0:
		h.refuse(400, status.New(codes.Internal, "no host or :authority header present"))
	case pseudo.method != "POST":
		h.refuse(405, status.Newf(codes.Internal, "Received a HEADERS frame with :method %q which should be POST", pseudo.method))
	}
}

func (h *headerSet) refuse(httpStatus int, st *status.Status) {
	h.httpStatus, h.refused = httpStatus, st
}

// pseudoFields are the fields that make a request line (RFC 9113, 8.3.1).
type pseudoFields struct {
	method, path                         string
	methods, schemes, paths, authorities int
	count                                int
	over                                 bool // an ordinary field came
}

func (p *pseudoFields) take(f *hpack.HeaderField) bool {
	p.count++
	switch f.Name {
	case ":method":
		p.methods++
		p.method = f.Value
	case ":scheme":
		p.schemes++
	case ":path":
		p.paths++
		p.path = f.Value
	case ":authority":
		p.authorities++
	default:
		return false
	}
	return !p.over
}

func (p *pseudoFields) complete() bool {
	return p.methods == 1 && p.schemes == 1 && p.paths == 1 && p.authorities <= 1 && p.method != "" && p.path != ""
}

// validName says whether a name is one of HTTP/2: a token without upper case.
func validName(name string) bool {
	if name == "" {
		return false
	}
	for i := range len(name) {
		if b := name[i]; b >= 'A' && b <= 'Z' || !httpguts.IsTokenRune(rune(b)) {
			return false
		}
	}
	return true
}

// subtypeOf tells whether a content type is gRPC's and returns what follows the sign
// behind it.
func subtypeOf(contentType string) (string, bool) {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	switch {
	case !ok:
		return "", false
	case rest == "":
		return "", true
	case rest[0] == '+' || rest[0] == ';':
		return rest[1:], true
	}
	return "", false
}

// parseTimeout reads the header grpc-timeout: at most eight digits and a unit.
func parseTimeout(s string) (time.Duration, error) {
	if len(s) < 2 {
		return 0, fmt.Errorf("transport: timeout string is too short: %q", s)
	}
	if len(s) > 9 {
		return 0, fmt.Errorf("transport: timeout string is too long: %q", s)
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, fmt.Errorf("transport: timeout unit is not recognized: %q", s)
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 64)
	if err != nil {
		return 0, err
	}
	if n > uint64(math.MaxInt64/unit) {
		return math.MaxInt64, nil
	}
	return unit * time.Duration(n), nil
}
