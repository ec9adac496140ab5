/* Numbers as Python prints them, for files that Python programs compare or diff. */
#ifndef TW_DATA_PYTHON_FLOAT_H
#define TW_DATA_PYTHON_FLOAT_H

enum { TW_PYTHON_FLOAT_BYTES = 32 };

/* Writes repr(x): the shortest decimal that reads back as x, of those the nearest; exponents below -4 and
 * from 16 on in the form 1e-05, always with ".0" or an exponent. x must be finite. Returns the length,
 * without the zero at the end. Wants the C locale's decimal point. */
int tw_python_float(double x, char text[TW_PYTHON_FLOAT_BYTES]);

#endif
