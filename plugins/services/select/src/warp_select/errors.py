"""S3 Select's error codes, with what they mean; source: "List of SELECT Object Content Error Codes" (S3 API reference)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from warp_core.interfaces.queries import QueryRefused

MEANINGS: Final = MappingProxyType(
    {
        "AmbiguousFieldName": "A field name matches more than one field of the file.",
        "Busy": "All query workers are busy; please try again.",
        "CSVParsingError": "The CSV file cannot be parsed.",
        "CastFailed": "A value cannot be converted to the type that the expression asks for.",
        "EvaluatorBindingDoesNotExist": "The expression names something that is not there.",
        "EvaluatorInvalidArguments": "A function got the wrong number of arguments.",
        "EvaluatorInvalidTimestampFormatPattern": "A timestamp format is not valid.",
        "EvaluatorInvalidTimestampFormatPatternSymbol": "A timestamp format has an unknown symbol.",
        "EvaluatorLikePatternInvalidEscapeSequence": "A LIKE pattern escapes what needs no escape.",
        "EvaluatorNegativeLimit": "LIMIT is negative.",
        "ExpressionTooLong": "The expression is too long or too deeply nested.",
        "ExternalEvalException": "The query cannot be evaluated.",
        "IncorrectSqlFunctionArgumentType": "A function got an argument of a wrong type.",
        "IntegerOverflow": "A number is too large for its type.",
        "InternalError": "The query failed inside the server.",
        "InvalidCompressionFormat": "The object is not compressed as the request says.",
        "InvalidColumnIndex": "A column is named that is not valid.",
        "InvalidDataSource": "The FROM clause has to name S3Object.",
        "InvalidDataType": "The expression has a type that S3 Select does not know.",
        "InvalidKeyPath": "A path of the expression is not valid.",
        "InvalidScanRange": "The scan range is not valid.",
        "InvalidTableAlias": "The expression names a table that its FROM clause does not.",
        "InvalidTextEncoding": "The object is not encoded in UTF-8.",
        "JSONParsingError": "The JSON file cannot be parsed.",
        "LexerInvalidChar": "The expression has a character that does not belong there.",
        "LexerInvalidIONLiteral": "The expression has an Ion literal that is not valid.",
        "LexerInvalidLiteral": "The expression has a literal that does not end.",
        "LexerInvalidOperator": "The expression has an operator that is not valid.",
        "LikeInvalidInputs": "LIKE got an argument that is not valid.",
        "MissingHeaders": "The expression names columns that the header line does not have.",
        "OverMaxColumn": "A record has too many columns.",
        "OverMaxRecordSize": "A record is longer than the limit.",
        "ParquetParsingError": "The Parquet file cannot be parsed.",
        "ParseAsteriskIsNotAloneInSelectList": "The asterisk has to stand alone in SELECT.",
        "ParseCastArity": "CAST has the wrong number of arguments.",
        "ParseEmptySelect": "SELECT has nothing to select.",
        "ParseExpectedArgumentDelimiter": "A comma is missing between arguments.",
        "ParseExpectedDatePart": "A date part is missing: year, month, day, hour, minute or second.",
        "ParseExpectedExpression": "An expression is missing.",
        "ParseExpectedIdentForAlias": "A name is missing after AS.",
        "ParseExpectedKeyword": "A keyword is missing.",
        "ParseExpectedLeftParenAfterCast": "A parenthesis is missing after CAST.",
        "ParseExpectedLeftParenBuiltinFunctionCall": "A parenthesis is missing after a function.",
        "ParseExpectedLeftParenValueConstructor": "A parenthesis is missing before a list.",
        "ParseExpectedNumber": "A number is missing.",
        "ParseExpectedRightParenBuiltinFunctionCall": "A function call does not end.",
        "ParseExpectedTypeName": "A type is missing after AS.",
        "ParseExpectedWhenClause": "CASE has no WHEN.",
        "ParseInvalidPathComponent": "A path has a step that is not valid.",
        "ParseNonUnaryAgregateFunctionCall": "An aggregate takes one argument.",
        "ParseSelectMissingFrom": "FROM is missing.",
        "ParseUnexpectedToken": "The expression has a word or sign that does not belong there.",
        "ParseUnsupportedCallWithStar": "Only COUNT takes an asterisk.",
        "ParseUnsupportedSelect": "The expression has to begin with SELECT.",
        "ParseUnsupportedSyntax": "The expression uses SQL that S3 Select does not have.",
        "TruncatedInput": "The object ends early.",
        "UnsupportedFunction": "The expression calls a function that S3 Select does not have.",
        "UnsupportedParquetType": "A column has a type that S3 Select does not read.",
        "UnsupportedScanRangeInput": "A scan range goes with uncompressed CSV and JSON lines only.",
        "UnsupportedSqlStructure": "The expression has a structure that S3 Select does not run.",
        "UnsupportedSyntax": "The expression uses SQL that S3 Select does not have.",
        "ValueParseFailure": "A timestamp cannot be read.",
    }
)


def refused(code: str, about: str = "") -> QueryRefused:
    """Make the error of a code; `about` says where or what."""
    meaning = MEANINGS[code]
    return QueryRefused(code, f"{meaning[:-1]}: {about}" if about else meaning)
