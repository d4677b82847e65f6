// One function for each file of bindings; module.cpp calls them all.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

void bind_search(pybind11::module_ &m);
