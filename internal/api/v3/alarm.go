package v3

import (
	"context"
	"strconv"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kvorum/kvorum/internal/host"
	"github.com/kvorum/kvorum/internal/id"
	"github.com/kvorum/kvorum/internal/state/command"
)

// Alarm lists, raises and disarms alarms (spec 6.4). The list is that of the cluster,
// behind a barrier. An action that is none of these is refused; the reference crashes.
func (m *maintenance) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	a := command.Alarm{Member: id.Member(r.GetMemberID()), Type: command.AlarmType(r.GetAlarm())}
	switch r.GetAction() {
	case pb.AlarmRequest_GET:
		return m.alarms(ctx, a.Type)
	case pb.AlarmRequest_ACTIVATE:
		return m.changeAlarm(ctx, &command.AlarmRaise{Alarm: a})
	case pb.AlarmRequest_DEACTIVATE:
		return m.changeAlarm(ctx, &command.AlarmDisarm{Alarm: a})
	}
	return nil, status.Error(codes.InvalidArgument, "etcdserver: unknown alarm action")
}

// alarms lists those of a type, or all of them for none. Whose they are is not asked.
func (m *maintenance) alarms(ctx context.Context, kind command.AlarmType) (*pb.AlarmResponse, error) {
	if _, err := await(ctx, m.member, m.member.Barrier); err != nil {
		return nil, toWire(err)
	}
	now := m.member.Status()
	out := &pb.AlarmResponse{Header: header(m.member, now.Revision)}
	for _, a := range now.Alarms {
		if kind == command.AlarmNone || kind == a.Type {
			out.Alarms = append(out.Alarms, alarmToWire(a))
		}
	}
	return out, nil
}

func (m *maintenance) changeAlarm(ctx context.Context, change command.Body) (*pb.AlarmResponse, error) {
	as, err := session(ctx, m.member)
	if err != nil {
		return nil, toWire(err)
	}
	result, err := await(ctx, m.member, func(call host.Call) { as.ChangeAlarm(call, change) })
	if err != nil {
		return nil, toWire(err)
	}
	done := result.Response.(*command.AlarmResponse)
	out := &pb.AlarmResponse{Header: header(m.member, done.Revision)}
	for _, a := range done.Alarms {
		out.Alarms = append(out.Alarms, alarmToWire(a))
	}
	return out, nil
}

func alarmToWire(a command.Alarm) *pb.AlarmMember {
	return &pb.AlarmMember{MemberID: uint64(a.Member), Alarm: pb.AlarmType(a.Type)}
}

// alarmText is how Status tells of an alarm among its errors: what is zero is left out.
func alarmText(a command.Alarm) string {
	text := "alarm:" + pb.AlarmType(a.Type).String()
	if a.Member != 0 {
		text = "memberID:" + strconv.FormatUint(uint64(a.Member), 10) + " " + text
	}
	return text
}
