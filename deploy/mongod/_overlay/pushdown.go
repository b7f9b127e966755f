package sqlite

import (
	"fmt"
	"math"
	"strings"

	"github.com/FerretDB/FerretDB/internal/backends/sqlite/metadata"
	"github.com/FerretDB/FerretDB/internal/handler/sjson"
	"github.com/FerretDB/FerretDB/internal/types"
	"github.com/FerretDB/FerretDB/internal/util/must"
)

// wherePushdown returns a WHERE clause that leaves out most documents which do not match the
// filter: by strings compared for equality, with `$eq` left out, by `$in` of strings, and by
// comparisons with a number. The whole filter is applied to what is left, so it may let too many
// through, never too few.
func wherePushdown(filter *types.Document) (string, []any) {
	var conditions []string
	var args []any
	var equal []equality
	for _, key := range filter.Keys() {
		if key == "" || strings.ContainsAny(key, `$."`) {
			continue
		}
		column := fmt.Sprintf(`%s->"%s"`, metadata.DefaultColumn, key)
		switch value := must.NotFail(filter.Get(key)).(type) {
		case string:
			if key == "_id" { // is never an array
				conditions = append(conditions, column+" = ?")
				args = append(args, encoded(value))
			} else {
				equal = append(equal, equality{column, encoded(value)})
			}
		case *types.Document:
			if wanted, ok := value.Get("$in"); ok == nil && value.Len() == 1 {
				condition, found := among(column, wanted)
				if condition != "" {
					if key != "_id" {
						condition = fmt.Sprintf("(%s OR %s)", condition, isArray(column))
					}
					conditions = append(conditions, condition)
					args = append(args, found...)
				}
				continue
			}
			for _, operator := range value.Keys() {
				fails, known := failing[operator]
				number, isNumber := asNumber(must.NotFail(value.Get(operator)))
				if known && isNumber {
					conditions = append(conditions, fmt.Sprintf(
						"NOT (%s GLOB '[-0-9]*' AND CAST(%s AS NUMERIC) %s ?)", column, column, fails,
					))
					args = append(args, number)
				}
			}
		}
	}
	if len(equal) > 0 {
		condition, found := allEqual(equal)
		conditions = append(conditions, condition)
		args = append(args, found...)
	}
	if len(conditions) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(conditions, " AND "), args
}

// equality is a column and the JSON text that it is to have.
type equality struct {
	column string
	text   string
}

// allEqual returns a condition that documents meet if all the columns have their text or an array,
// which matches by any of its elements. It says so in a form whose every part SQLite looks up in an
// index over the columns: all equal, or all before the first array.
func allEqual(equal []equality) (string, []any) {
	var parts, before []string
	var args, found []any
	for _, each := range equal {
		parts = append(parts, strings.Join(append(before[:len(before):len(before)], isArray(each.column)), " AND "))
		found = append(found, args...)
		before = append(before, each.column+" = ?")
		args = append(args, each.text)
	}
	parts = append(parts, strings.Join(before, " AND "))
	found = append(found, args...)
	return "((" + strings.Join(parts, ") OR (") + "))", found
}

// isArray returns a condition that a column's JSON text is an array: starts with a bracket.
func isArray(column string) string {
	return fmt.Sprintf("%s >= '[' AND %s < '\\'", column, column)
}

// among returns a condition that a column is one of an array's strings; none if they are not all
// strings, or too many.
func among(column string, wanted any) (string, []any) {
	list, isList := wanted.(*types.Array)
	if !isList || list.Len() == 0 || list.Len() > 10_000 {
		return "", nil
	}
	found := make([]any, 0, list.Len())
	for i := range list.Len() {
		text, isText := must.NotFail(list.Get(i)).(string)
		if !isText {
			return "", nil
		}
		found = append(found, encoded(text))
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(found)), ", ")
	return fmt.Sprintf("%s IN (%s)", column, marks), found
}

// failing has by operator the comparison of a number that does not match.
var failing = map[string]string{"$gt": "<=", "$gte": "<", "$lt": ">=", "$lte": ">"}

// asNumber returns a BSON number as SQLite takes it; false for what is none or has no bounds.
func asNumber(value any) (any, bool) {
	switch value := value.(type) {
	case int32:
		return int64(value), true
	case int64:
		return value, true
	case float64:
		return value, !math.IsInf(value, 0) && !math.IsNaN(value)
	default:
		return nil, false
	}
}

func encoded(value string) string {
	return string(must.NotFail(sjson.MarshalSingleValue(value)))
}
