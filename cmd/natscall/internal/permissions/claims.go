package permissions

import (
	"io"

	"github.com/nats-io/jwt/v2"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
)

// printUserClaims prints what the part "nats" of a user's claims says about permissions and limits,
// or the "template" of a scoped signing key; one for each user.
func printUserClaims(w io.Writer, users []*user, allowed []permissions) error {
	all := make(map[string]jwt.UserPermissionLimits)
	for i, u := range users {
		all[u.name] = allowed[i].claims()
	}
	return output.New(w).JSON(all)
}

func (p permissions) claims() jwt.UserPermissionLimits {
	out := jwt.UserPermissionLimits{Limits: jwt.Limits{NatsLimits: jwt.NatsLimits{
		Subs: jwt.NoLimit, Data: jwt.NoLimit, Payload: jwt.NoLimit, // 0 would allow nothing
	}}}
	out.Pub, out.Sub = permissionOf(p.publish), permissionOf(p.subscribe)
	if p.answers != 0 {
		out.Resp = &jwt.ResponsePermission{MaxMsgs: p.answers, Expires: p.within}
	}
	return out
}

func permissionOf(grants []grant) jwt.Permission {
	if len(grants) == 0 {
		return jwt.Permission{Deny: jwt.StringList{">"}}
	}
	var out jwt.Permission
	for _, g := range grants {
		out.Allow.Add(g.String())
	}
	return out
}

// printAccountClaims prints the exports and imports of two accounts, as in their claims.
func printAccountClaims(w io.Writer, b borders, all []crossing) error {
	var out struct {
		Exports jwt.Exports `json:"exports"`
		Imports jwt.Imports `json:"imports"`
	}
	for _, c := range all {
		kind := jwt.ResponseType(jwt.ResponseTypeSingleton)
		if c.stream {
			kind = jwt.ResponseTypeStream
		}
		out.Exports.Add(&jwt.Export{Name: c.subject, Subject: jwt.Subject(c.subject), Type: jwt.Service, ResponseType: kind})
		in := &jwt.Import{Name: c.subject, Subject: jwt.Subject(c.subject), Account: b.from, Type: jwt.Service}
		if c.local != c.subject {
			in.LocalSubject = jwt.RenamingSubject(c.local)
		}
		out.Imports.Add(in)
	}
	return output.New(w).JSON(out)
}
